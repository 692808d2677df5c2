#!/usr/bin/env bash
# A hostile QUIC peer (aioquic) against a throw-away cluster: docs/hostile.md. Arguments are names of attacks; all if none.
# HOSTILE_VENV: a folder for the Python environment that is kept; GAGGLE: another binary.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
gaggle=${GAGGLE:-$root/target/release/gaggle}
work=$(mktemp -d "${TMPDIR:-/tmp}/hostile-XXXXXX")
up=

end() {
    status=$?
    if [[ -n $up ]]; then
        kill -TERM "$up" 2>/dev/null || true
        wait "$up" || true
    fi
    if [[ $status == 0 ]]; then
        rm -rf "$work"
    else
        echo "kept: $work (up.log says what the processes logged)" >&2
    fi
}
trap end EXIT

[[ -x $gaggle ]] || { echo "no $gaggle: run cargo build --release first" >&2; exit 2; }
venv=${HOSTILE_VENV:-$work/venv}
[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check 'aioquic>=1.2,<2'
python=$venv/bin/python

mkdir -p "$work/topology" "$work/home"
export GAGGLE_HOME=$work/home GAGGLE_TOPOLOGY=$work/topology/lenss.toml PYTHONDONTWRITEBYTECODE=1
"$python" "$here/peer.py" topology "$root/topology/lenss.toml" "$GAGGLE_TOPOLOGY"
"$gaggle" up >"$work/up.log" 2>&1 &
up=$!
for _ in $(seq 200); do
    grep -q '^ready' "$work/up.log" && break
    kill -0 "$up" || { cat "$work/up.log" >&2; exit 1; }
    sleep 0.05
done
"$gaggle" login ann >/dev/null
"$gaggle" login bob >/dev/null
"$python" "$here/peer.py" attack "$gaggle" "$work" "$@"
