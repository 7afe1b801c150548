#!/bin/sh
# Keys and certificates of a federation: see the help below.
set -eu
umask 077
LC_ALL=C
export LC_ALL

AUTHORITY_DAYS=3650
# Some systems trust no server certificate that is valid for longer.
SERVER_DAYS=825

usage() {
    cat <<'EOF'
Make the keys and certificates of a federation with openssl and ssh-keygen.

  make_keys.sh DIR authority              ca.key, ca.crt: the authority that signs the SuperLink's certificate
  make_keys.sh DIR server HOST [HOST...]  server.key, server.crt: for the SuperLink, valid for these names and
                                          IP addresses; needs the authority's two files in DIR
  make_keys.sh DIR site NAME [NAME...]    NAME, NAME.pub: the pair of keys by which a site's SuperNode is known

DIR is made when absent. Nothing is ever overwritten: to renew a certificate or a pair of keys, remove its two
files and run the same command again.

Who gets what:
  ca.key          stays with the operator, best on no machine that is on a network
  ca.crt          everyone: the SuperLink, the SuperExec, each SuperNode, each user of flwr
  server.*        the SuperLink
  NAME            the SuperNode of this site alone; made at the site, it never has to travel
  NAME.pub        the operator, for `flwr supernode register`

Exit code: 0 done, 1 failed or refused, 2 bad usage.
EOF
}

fail() {
    printf 'Error: %s\n' "$1" >&2
    exit 1
}

misused() {
    printf 'Error: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

needs() {
    command -v "$1" >/dev/null || fail "$1 is not installed here"
}

# Everything is made here and moved into its place at the end, so that a failure leaves nothing half done.
begin() {
    mkdir -p "$dir" || fail "the folder $dir cannot be made"
    made=$(mktemp -d "$dir/.making.XXXXXX") || fail "nothing can be written in $dir"
    trap 'rm -rf "$made"' EXIT
    trap 'exit 1' HUP INT TERM
}

must_not_exist() {
    for file in "$@"; do
        [ ! -e "$dir/$file" ] || fail "$dir/$file is there already and stays; remove it to make a new one"
    done
}

put_in_place() {
    for file in "$@"; do
        mv "$made/$file" "$dir/$file"
    done
}

make_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$made/$1" 2>"$made/log" ||
        fail "openssl: $(cat "$made/log")"
    chmod 600 "$made/$1"
}

make_authority() {
    needs openssl
    must_not_exist ca.key ca.crt
    begin
    make_key ca.key
    cat >"$made/config" <<'EOF'
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
    openssl req -x509 -new -sha384 -config "$made/config" -key "$made/ca.key" -days "$AUTHORITY_DAYS" \
        -out "$made/ca.crt" 2>"$made/log" || fail "openssl: $(cat "$made/log")"
    chmod 644 "$made/ca.crt"
    put_in_place ca.key ca.crt
    cat <<EOF
$dir/ca.key  the authority's key: keep it with the operator, hand it to nobody
$dir/ca.crt  its certificate, valid for $AUTHORITY_DAYS days: for everyone
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
            misused "a host is a name such as superlink.example.org or an IP address, got '$host'" ;;
        *:*[!0-9A-Fa-f:.]* | *[!0-9A-Fa-f:.]*:*)
            misused "give the host without a port, got '$host'" ;;
        esac
    done
}

make_server() {
    needs openssl
    for file in ca.key ca.crt; do
        [ -f "$dir/$file" ] || fail "$dir/$file is not there; make the authority first: make_keys.sh $dir authority"
    done
    must_not_exist server.key server.crt
    begin
    make_key server.key
    cat >"$made/config" <<EOF
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
    { openssl req -new -sha384 -config "$made/config" -key "$made/server.key" -out "$made/request" &&
        openssl x509 -req -sha384 -in "$made/request" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
            -set_serial "0x$(openssl rand -hex 16)" -days "$SERVER_DAYS" \
            -extfile "$made/config" -extensions extensions -out "$made/server.crt"; } 2>"$made/log" ||
        fail "openssl: $(cat "$made/log")"
    chmod 644 "$made/server.crt"
    put_in_place server.key server.crt
    cat <<EOF
$dir/server.key  the SuperLink's key: for the SuperLink alone
$dir/server.crt  its certificate for $*, valid for $SERVER_DAYS days: for the SuperLink
EOF
}

check_names() {
    for name in "$@"; do
        case $name in
        '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*)
            misused "a site's name has letters, digits and . _ - and begins with a letter or digit, got '$name'" ;;
        *.key | *.crt | *.pub)
            misused "a site's name does not end in .key, .crt or .pub, as other files here do, got '$name'" ;;
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
        [ ! -e "$made/$name" ] || misused "the site $name was named twice"
        ssh-keygen -q -t ecdsa -b 384 -N '' -C "$name" -f "$made/$name" </dev/null >"$made/.log" 2>&1 ||
            fail "ssh-keygen: $(cat "$made/.log")"
        chmod 600 "$made/$name"
        chmod 644 "$made/$name.pub"
    done
    for name in "$@"; do
        put_in_place "$name" "$name.pub"
        printf '%s\n' "$dir/$name  the private key: for the SuperNode of this site alone" \
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
[ $# -ge 2 ] || misused "give a folder and what to make: authority, server or site"
case $1 in
'' | -*) misused "the folder comes first, got '$1'" ;;
esac
dir=$1
what=$2
shift 2
case $what in
authority)
    [ $# -eq 0 ] || misused "authority takes nothing more, got '$*'"
    make_authority ;;
server)
    [ $# -ge 1 ] || misused "give the names and IP addresses by which the SuperLink is reached"
    check_hosts "$@"
    make_server "$@" ;;
site)
    [ $# -ge 1 ] || misused "give the name of the site"
    check_names "$@"
    make_sites "$@" ;;
*) misused "what to make is authority, server or site, got '$what'" ;;
esac
