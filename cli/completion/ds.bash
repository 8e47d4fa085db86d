# bash completion of ds(1)

# The ids of the newest runs of the server, unless an option is being written; nothing when it does not answer.
_ds_run_ids()
{
    [[ $1 == -* ]] || ds runs --limit 50 "${@:2}" 2>/dev/null | sed -n '2,$s/ .*//p'
}

_ds()
{
    local commands="query runs show cancel status replay doctor template init add trigger webhook serve check"
    local server="--server --api-key --ca-file --cert --key --help"
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command="" choices="" i

    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ " $commands " == *" ${COMP_WORDS[i]} "* ]]; then
            command=${COMP_WORDS[i]}
            break
        fi
    done

    case $before in
    -f | --file | --ca-file | --cert | --key | --config)
        COMPREPLY=($(compgen -f -- "$word"))
        return
        ;;
    -o | --output | --project-dir | --state-dir | --template-dir)
        COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    --status) choices="running completed error cancelled" ;;
    --transport) choices="http sse" ;;
    -m | --model | -t | --timeout | --max-turns | -d | --data | -n | --next | --name | --server | --api-key | --limit | --custom | --url | --header | --env)
        return
        ;;
    *)
        case $command in
        "") choices="$commands -m -t -f -o --model --max-turns --timeout --file --output --json --quiet --version $server" ;;
        query) choices="-m -t -f -o --model --max-turns --timeout --file --output --json --quiet $server" ;;
        runs) choices="--status --limit --json --watch $server" ;;
        status) choices="--json --watch $server" ;;
        show) choices="--json $server $(_ds_run_ids "$word")" ;;
        replay) choices="-m -f --model --file $server $(_ds_run_ids "$word")" ;;
        cancel) choices="$server $(_ds_run_ids "$word" --status running)" ;;
        init)
            if [[ $word == -* ]]; then
                choices="--list --force --help"
            elif [[ $before == init ]]; then
                choices=$(ds init --list 2>/dev/null)
            else
                COMPREPLY=($(compgen -d -- "$word"))
                return
            fi
            ;;
        add) choices="linear notion firecrawl exa github --custom --url --transport --header --env --force --project-dir --help" ;;
        template) choices="build list remove --e2b --local --cpus --memory --sdk-version --force --help" ;;
        trigger)
            choices="list test -d -n --data --next --json --project-dir $server"
            if [[ $before == test ]]; then
                choices=$(ds trigger list 2>/dev/null | sed -n '2,$s/ .*//p')
            fi
            ;;
        webhook)
            choices="register list delete test --name --json --project-dir $server"
            ;;
        doctor) choices="--deep --help $(_ds_settings)" ;;
        serve) choices="--host --port --help $(_ds_settings)" ;;
        check)
            if [[ $word != -* ]]; then
                COMPREPLY=($(compgen -d -- "$word"))
                return
            fi
            choices="--help $(_ds_settings)"
            ;;
        esac
        ;;
    esac
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}

# The settings of the server, as options.
_ds_settings()
{
    sandstorm --help 2>/dev/null | sed -n '/^Settings/,$s/^  \(--[a-z0-9-]*\) .*/\1/p'
}

complete -F _ds ds
