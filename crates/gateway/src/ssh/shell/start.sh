# Starts the user's shell so that it marks its lines; read by `/bin/sh` on the host. It begins as a login shell does. What zsh
# needs a file for is removed while it is read, and soon after in any case.
onrecord_shell=${SHELL:-/bin/sh}
[ -e "${HOME-}/.hushlogin" ] || for onrecord_file in /run/motd.dynamic /etc/motd; do
  [ -r "$onrecord_file" ] && cat "$onrecord_file"
done
case ${onrecord_shell##*/} in
bash)
  # `PS0` came with version 4.4.
  if "$onrecord_shell" --norc --noprofile -c '((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404))' 2>/dev/null &&
    [ -e /dev/fd/0 ]; then
    exec "$onrecord_shell" --rcfile /dev/fd/9 -i 9<<'ONRECORD_END'
@BASH@
ONRECORD_END
  fi
  ;;
zsh)
  if onrecord_dir=$(mktemp -d 2>/dev/null); then
    if cat >"$onrecord_dir/.zshenv" 2>/dev/null <<'ONRECORD_END'
@ZSH@
ONRECORD_END
    then
      (sleep 10; rm -rf -- "$onrecord_dir") </dev/null >/dev/null 2>&1 &
      if [ "${ZDOTDIR+set}" = set ]; then export ONRECORD_ZDOTDIR="$ZDOTDIR"; fi
      ZDOTDIR=$onrecord_dir exec "$onrecord_shell" -l -i
    fi
    rm -rf -- "$onrecord_dir"
  fi
  ;;
fish)
  exec "$onrecord_shell" -l -i -C "$(cat <<'ONRECORD_END'
@FISH@
ONRECORD_END
)"
  ;;
esac
printf '\033]633;N;@NONCE@\007'
case ${onrecord_shell##*/} in
csh | tcsh | bash | zsh | fish | ksh* | mksh | dash | ash | sh) exec "$onrecord_shell" -l ;;
esac
exec "$onrecord_shell"
