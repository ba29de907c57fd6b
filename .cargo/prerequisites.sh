# What a build needs, checked with one sentence for each thing that is missing; read by `pipe` and `.ci/run`.
# Expects `root`; starts Python only if there is no libtorch yet.

need() { # COMMAND, what to do
    command -v "$1" >/dev/null 2>&1 || {
        echo "pipe: $1 is not there: $2" >&2
        exit 1
    }
}

need cargo 'install Rust from https://rustup.rs'
need rustc 'install Rust from https://rustup.rs'
rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
found=$(cd -- "$root" && rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
if [ "$(printf '%s\n%s\n' "$rust" "$found" | sort -V | head -n 1)" != "$rust" ]; then
    echo "pipe: rustc is ${found:-of an unknown version} and at least $rust is needed: run \`rustup update stable\`, or install Rust from https://rustup.rs" >&2
    exit 1
fi
need "${CXX:-c++}" 'install a C++ compiler (`apt install g++`, `dnf install gcc-c++`)'
need "${CC:-cc}" 'install a C compiler, which also links (`apt install gcc`, `dnf install gcc`)'

if [ -n "${LIBTORCH_USE_PYTORCH+set}" ] || [ -n "${LIBTORCH-}" ] ||
    [ "$(cat "$root/.libtorch/build-version" 2>/dev/null)" != 2.11.0 ] || [ ! -e "$root/.libtorch/lib/libtorch.so" ]; then
    need python3 'install Python 3 with pip (`apt install python3 python3-pip`)'
    python3 "$root/.cargo/libtorch.py" || exit 1
fi
