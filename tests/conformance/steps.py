"""The steps of e2b.md B.9, one name each. Every half has a function for every one of them, and for no other."""

STEPS = (
    # create, bad create
    "create",
    "create_unknown_template",
    "create_malformed_key",
    "create_unknown_key",
    # run
    "run_output",
    "run_exit_code",
    "run_unknown_command",
    "run_cwd_and_envs",
    # run, failing
    "run_missing_cwd",
    "run_unknown_user",
    "run_timeout_kills",
    # output
    "output_keeps_characters_whole",
    "output_comes_in_order",
    # background
    "background_list_and_kill",
    "kill_unknown_pid",
    "processes_share_the_sandbox",
    # attach
    "attach",
    "attach_to_the_finished",
    "attach_to_unknown_pid",
    # stdin
    "stdin",
    "stdin_of_none",
    "pty",
    # write
    "write_one",
    "write_many",
    "write_nothing",
    "write_octet_stream",
    "write_gzip",
    "write_metadata",
    # read
    "read",
    "read_missing",
    "read_directory",
    "read_without_token",
    "signed_urls",
    # filesystem
    "exists",
    "make_dir",
    "list_dir",
    "list_depth",
    "list_missing",
    "get_info",
    "rename",
    "remove",
    "watch_dir",
    "watch_missing",
    # lifetime
    "set_timeout",
    "connect_never_shortens",
    "expiry",
    # list
    "list_pages",
    "list_odd_metadata",
    # pause
    "pause",
    # killed while running
    "killed_while_running",
    "use_after_kill",
    # kill
    "kill",
)

# Metadata that an encoding less or more than E2B's three breaks.
ODD_METADATA = {"k": "a b&c=d é"}
