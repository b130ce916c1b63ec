# Sourced by the other scripts.

if ! command -v az >/dev/null; then
    echo "The Azure CLI is missing. Install it: https://aka.ms/azcli" >&2
    exit 1
fi

# get_setting NAME: from the environment, where azd puts it for its hooks, or from azd's chosen environment.
get_setting() {
    value=$(printenv "$1" || true)
    if [ -z "$value" ] && ! value=$(azd env get-value "$1"); then
        echo "$1 is not set. Set it, or run this where azd knows the environment." >&2
        return 1
    fi
    echo "$value"
}

# is_closed ERROR: whether a vault said that it does not answer to this network.
is_closed() {
    case $1 in
        *ForbiddenByConnection* | *ForbiddenByFirewall* | *"Public network access is disabled"*) return 0 ;;
    esac
    return 1
}
