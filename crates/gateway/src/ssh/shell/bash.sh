exec 9<&-
# What a login shell reads.
if [[ -r /etc/profile ]]; then . /etc/profile; fi
if [[ -r ~/.bash_profile ]]; then . ~/.bash_profile
elif [[ -r ~/.bash_login ]]; then . ~/.bash_login
elif [[ -r ~/.profile ]]; then . ~/.profile
fi

__onrecord_escape() {
  local c
  REPLY=${1//\\/\\\\}
  REPLY=${REPLY//;/\\x3b}
  if [[ $REPLY == *[[:cntrl:]]* ]]; then
    REPLY=${REPLY//$'\n'/\\x0a}
    for c in {1..9} {11..31} 127; do
      printf -v c '\\x%02x' "$c"
      REPLY=${REPLY//"$(printf "$c")"/$c}
    done
  fi
}

# The last line of the history with its number; nothing where times that cannot be switched off stand between them.
__onrecord_history() {
  if [[ -o history && ${HISTTIMEFORMAT@a} != *r* ]]; then HISTTIMEFORMAT='' builtin history 1; fi
}

# The line that was just read, as the history has it. In a subshell, so that nothing of it is left. What the history does not
# take (its settings are the user's), or only a part of, is not told from here.
__onrecord_line() {
  set +eu
  local line directory
  __onrecord_escape "$PWD"
  directory=$REPLY
  line=$(__onrecord_history)
  if [[ $line != "${__onrecord_last-}" && $line =~ ^\ *[0-9]+[\ *]\  ]] && shopt -q cmdhist; then
    __onrecord_escape "${line#"${BASH_REMATCH[0]}"}"
    printf '\033]633;E;%s;%s;@NONCE@\007' "$REPLY" "$directory"
  else
    printf '\033]633;U;%s;@NONCE@\007' "$directory"
  fi
}

# Stands first among what runs before each prompt: behind others, the status would be theirs.
__onrecord_first() {
  local command
  local -a others=()
  if [[ ${PROMPT_COMMAND[0]-} == __onrecord_prompt* ]]; then return; fi
  for command in "${PROMPT_COMMAND[@]}"; do
    others+=("${command//__onrecord_prompt/:}")
  done
  if [[ ${PROMPT_COMMAND@a} == *a* ]]; then
    PROMPT_COMMAND=(__onrecord_prompt "${others[@]}")
  else
    PROMPT_COMMAND=__onrecord_prompt${others[0]:+$'\n'${others[0]}}
  fi
  return 1
}

__onrecord_prompt() {
  local status=$? pipeline="${PIPESTATUS[*]}" options=$-
  set +eu
  if __onrecord_first; then
    printf '\033]633;D;%s;%s;@NONCE@\007' "$status" "$pipeline"
  else
    printf '\033]633;D;?;;@NONCE@\007'
  fi
  __onrecord_last=$(__onrecord_history)
  if [[ $PS0 != *__onrecord_line* ]]; then PS0=$PS0'$(__onrecord_line)'; fi
  if [[ $options == *u* ]]; then set -u; fi
  # With `set -e` the shell would end with the status that it is given back.
  if [[ $options == *e* ]]; then
    set -e
    return 0
  fi
  return "$status"
}

if [[ ${PROMPT_COMMAND@a}${PS0@a} == *r* ]] || ! shopt -q promptvars; then
  printf '\033]633;N;@NONCE@\007'
else
  __onrecord_first || :
fi
