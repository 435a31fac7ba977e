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

# The line that was just read, as the history has it. In a subshell, so that nothing of it is left.
__onrecord_line() {
  local line text
  __onrecord_escape "$PWD"
  local directory=$REPLY
  line=$(HISTTIMEFORMAT='' builtin history 1)
  if [[ -o history && $line =~ ^\ *[0-9]+[\ *]\  ]]; then
    __onrecord_escape "${line#"${BASH_REMATCH[0]}"}"
    printf '\033]633;E;%s;%s;@NONCE@\007' "$REPLY" "$directory"
  else
    printf '\033]633;U;%s;@NONCE@\007' "$directory"
  fi
}

# What the user wants left out of the history is in it until the next prompt.
__onrecord_history() {
  case :$HISTCONTROL: in
  *:ignorespace:*) __onrecord_spaces=1 HISTCONTROL=${HISTCONTROL//ignorespace/} ;;
  *:ignoreboth:*) __onrecord_spaces=1 HISTCONTROL=${HISTCONTROL//ignoreboth/ignoredups} ;;
  esac
  if [[ -n $HISTIGNORE ]]; then __onrecord_ignored=$HISTIGNORE HISTIGNORE=; fi
  if [[ -z $__onrecord_spaces$__onrecord_ignored ]]; then return; fi
  local line pattern out=
  line=$(HISTTIMEFORMAT='' builtin history 1)
  [[ $line =~ ^\ *([0-9]+)[\ *]\  ]] || return
  local number=${BASH_REMATCH[1]}
  line=${line#"${BASH_REMATCH[0]}"}
  if [[ -n $__onrecord_spaces && $line == ' '* ]]; then out=1; fi
  local IFS=:
  set -f
  for pattern in $__onrecord_ignored; do
    if [[ $line == $pattern ]]; then out=1; fi
  done
  set +f
  if [[ -n $out ]]; then builtin history -d "$number"; fi
}

__onrecord_prompt() {
  local status=$? pipeline="${PIPESTATUS[*]}"
  printf '\033]633;D;%s;%s;@NONCE@\007' "$status" "$pipeline"
  __onrecord_history
  if [[ $PS0 != *__onrecord_line* ]]; then PS0=$PS0'$(__onrecord_line)'; fi
  return "$status"
}

if [[ $(declare -p PROMPT_COMMAND 2>/dev/null) == 'declare -a'* ]]; then
  PROMPT_COMMAND=(__onrecord_prompt "${PROMPT_COMMAND[@]}")
else
  PROMPT_COMMAND=__onrecord_prompt${PROMPT_COMMAND:+$'\n'$PROMPT_COMMAND}
fi
