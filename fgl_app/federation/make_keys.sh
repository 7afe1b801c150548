#!/bin/sh
# Create the keys and certificates of a federation; see the help below.
set -eu
umask 077
LC_ALL=C
export LC_ALL

AUTHORITY_DAYS=3650
# Some systems reject server certificates that are valid for longer.
SERVER_DAYS=825

usage() {
    cat <<'EOF'
Create the keys and certificates of a federation with openssl and ssh-keygen.

  make_keys.sh DIR authority              ca.key, ca.crt: the authority that signs the SuperLink's certificate
  make_keys.sh DIR server HOST [HOST...]  server.key, server.crt: for the SuperLink, valid for these names and
                                          IP addresses; needs the authority's two files in DIR
  make_keys.sh DIR site NAME [NAME...]    NAME, NAME.pub: the key pair that identifies a site's SuperNode

DIR is created if it does not exist. Existing files are never overwritten: to renew a certificate or a key
pair, remove its two files and run the same command again.

Who gets which file:
  ca.key          only the operator, ideally on a machine without network
  ca.crt          everyone: the SuperLink, the SuperExec, each SuperNode, each user of flwr
  server.*        the SuperLink
  NAME            only the SuperNode of this site; if created at the site, it never leaves it
  NAME.pub        the operator, for `flwr supernode register`

Exit code: 0 success, 1 failure, 2 invalid usage.
EOF
}

fail() {
    printf 'Error: %s\n' "$1" >&2
    exit 1
}

usage_error() {
    printf 'Error: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

needs() {
    command -v "$1" >/dev/null || fail "$1 is not installed"
}

# Files are created in a temporary folder and moved to DIR at the end: a failure leaves no partial files.
begin() {
    mkdir -p "$dir" || fail "cannot create the folder $dir"
    work=$(mktemp -d "$dir/.make_keys.XXXXXX") || fail "cannot write to $dir"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
}

must_not_exist() {
    for file in "$@"; do
        [ ! -e "$dir/$file" ] || fail "$dir/$file exists; remove it to create a new one"
    done
}

put_in_place() {
    for file in "$@"; do
        mv "$work/$file" "$dir/$file"
    done
}

make_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$work/$1" 2>"$work/log" ||
        fail "openssl: $(cat "$work/log")"
    chmod 600 "$work/$1"
}

make_authority() {
    needs openssl
    must_not_exist ca.key ca.crt
    begin
    make_key ca.key
    cat >"$work/config" <<'EOF'
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = federation authority
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
EOF
    openssl req -x509 -new -sha384 -config "$work/config" -key "$work/ca.key" -days "$AUTHORITY_DAYS" \
        -out "$work/ca.crt" 2>"$work/log" || fail "openssl: $(cat "$work/log")"
    chmod 644 "$work/ca.crt"
    put_in_place ca.key ca.crt
    cat <<EOF
$dir/ca.key  the authority's key: for the operator only
$dir/ca.crt  the authority's certificate, valid for $AUTHORITY_DAYS days: for everyone
EOF
}

alternative_names() {
    for host in "$@"; do
        case $host in
        *:*) printf 'IP:%s\n' "$host" ;;
        *[!0-9.]*) printf 'DNS:%s\n' "$host" ;;
        *) printf 'IP:%s\n' "$host" ;;
        esac
    done | paste -s -d , -
}

check_hosts() {
    for host in "$@"; do
        case $host in
        '' | -* | .* | *[!A-Za-z0-9.:_-]*)
            usage_error "a host must be a name such as superlink.example.org or an IP address, got '$host'" ;;
        *:*[!0-9A-Fa-f:.]* | *[!0-9A-Fa-f:.]*:*)
            usage_error "give the host without a port, got '$host'" ;;
        esac
    done
}

make_server() {
    needs openssl
    for file in ca.key ca.crt; do
        [ -f "$dir/$file" ] || fail "$dir/$file is missing; create the authority first: make_keys.sh $dir authority"
    done
    must_not_exist server.key server.crt
    begin
    make_key server.key
    cat >"$work/config" <<EOF
[req]
distinguished_name = name
prompt = no
[name]
CN = superlink
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $(alternative_names "$@")
EOF
    { openssl req -new -sha384 -config "$work/config" -key "$work/server.key" -out "$work/request" &&
        openssl x509 -req -sha384 -in "$work/request" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
            -set_serial "0x$(openssl rand -hex 16)" -days "$SERVER_DAYS" \
            -extfile "$work/config" -extensions extensions -out "$work/server.crt"; } 2>"$work/log" ||
        fail "openssl: $(cat "$work/log")"
    chmod 644 "$work/server.crt"
    put_in_place server.key server.crt
    cat <<EOF
$dir/server.key  the SuperLink's key: for the SuperLink only
$dir/server.crt  the SuperLink's certificate for $*, valid for $SERVER_DAYS days: for the SuperLink
EOF
}

check_names() {
    for name in "$@"; do
        case $name in
        '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*)
            usage_error "a site's name must begin with a letter or digit and have only letters, digits and . _ -, got '$name'" ;;
        *.key | *.crt | *.pub)
            usage_error "a site's name must not end in .key, .crt or .pub, got '$name'" ;;
        esac
    done
}

make_sites() {
    needs ssh-keygen
    for name in "$@"; do
        must_not_exist "$name" "$name.pub"
    done
    begin
    for name in "$@"; do
        [ ! -e "$work/$name" ] || usage_error "the site $name is given twice"
        ssh-keygen -q -t ecdsa -b 384 -N '' -C "$name" -f "$work/$name" </dev/null >"$work/.log" 2>&1 ||
            fail "ssh-keygen: $(cat "$work/.log")"
        chmod 600 "$work/$name"
        chmod 644 "$work/$name.pub"
    done
    for name in "$@"; do
        put_in_place "$name" "$name.pub"
        printf '%s\n' "$dir/$name  the private key: for the SuperNode of this site only" \
            "$dir/$name.pub  the public key: for the operator, who runs \`flwr supernode register\` with it"
    done
}

for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit 0 ;;
    esac
done
[ $# -ge 2 ] || usage_error "give a folder and one of authority, server, site"
case $1 in
'' | -*) usage_error "the first argument must be the folder, got '$1'" ;;
esac
dir=$1
what=$2
shift 2
case $what in
authority)
    [ $# -eq 0 ] || usage_error "authority takes no further arguments, got '$*'"
    make_authority ;;
server)
    [ $# -ge 1 ] || usage_error "give the names and IP addresses of the SuperLink"
    check_hosts "$@"
    make_server "$@" ;;
site)
    [ $# -ge 1 ] || usage_error "give the name of the site"
    check_names "$@"
    make_sites "$@" ;;
*) usage_error "the second argument must be authority, server or site, got '$what'" ;;
esac
