# What the scripts share: where the checkout is, and how they speak.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
say() { printf '%s\n' "$*" >&2; }
die() { printf 'shoal: %s\n' "$*" >&2; exit 1; }
