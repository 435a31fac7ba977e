function __onrecord_escape
    set -l text (string split \n -- $argv[1] | string replace -a '\\' '\\\\' | string replace -a ';' '\\x3b' | string join '\\x0a')
    set -l code
    if string match -qr '[\x01-\x1f\x7f]' -- $text
        for code in (seq 1 31) 127
            set -l hex (printf '%02x' $code)
            set text (string replace -a (printf "\\x$hex") '\\x'$hex -- $text)
        end
    end
    printf %s $text
end
function __onrecord_preexec --on-event fish_preexec
    printf '\e]633;E;%s;%s;@NONCE@\a' (__onrecord_escape "$argv[1]" | string collect) (__onrecord_escape $PWD | string collect)
end
function __onrecord_postexec --on-event fish_postexec
    set -l last $status $pipestatus
    printf '\e]633;D;%s;%s;@NONCE@\a' $last[1] "$last[2..]"
end
# Also where a line was given up. Of one that ran, the status was told before.
function __onrecord_prompt --on-event fish_prompt --on-event fish_cancel
    printf '\e]633;D;?;;@NONCE@\a'
end
