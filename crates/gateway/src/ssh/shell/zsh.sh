command rm -rf -- "$ZDOTDIR"
if (( ${+ONRECORD_ZDOTDIR} )); then
  ZDOTDIR=$ONRECORD_ZDOTDIR
  unset ONRECORD_ZDOTDIR
else
  unset ZDOTDIR
fi

__onrecord_escape() {
  emulate -L zsh
  local code
  REPLY=${1//\\/\\\\}
  REPLY=${REPLY//;/\\x3b}
  if [[ $REPLY == *[[:cntrl:]]* ]]; then
    for code in {1..31} 127; do
      REPLY=${REPLY//${(#)code}/\\x$(printf '%02x' $code)}
    done
  fi
}

__onrecord_preexec() {
  emulate -L zsh
  local directory text REPLY
  __onrecord_escape "$PWD"
  directory=$REPLY
  if [[ -n ${1:-$3} ]]; then
    __onrecord_escape "${1:-$3}"
    printf '\033]633;E;%s;%s;@NONCE@\007' "$REPLY" "$directory"
  else
    printf '\033]633;U;%s;@NONCE@\007' "$directory"
  fi
}

__onrecord_precmd() {
  local last=$? pipeline="${pipestatus[*]}"
  emulate -L zsh
  # Set up at the first prompt, behind everything that the user's own files set up.
  if (( ! ${preexec_functions[(I)__onrecord_preexec]} )); then preexec_functions=(__onrecord_preexec $preexec_functions); fi
  printf '\033]633;D;%s;%s;@NONCE@\007' "$last" "$pipeline"
  return $last
}
typeset -ga precmd_functions preexec_functions
precmd_functions=(__onrecord_precmd $precmd_functions)

if [[ -r ${ZDOTDIR:-$HOME}/.zshenv ]]; then . "${ZDOTDIR:-$HOME}/.zshenv"; fi
