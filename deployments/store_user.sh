#!/usr/bin/env bash
# Makes the workers' user of a MinIO store, with the policy of deployments/policies; running it
# again changes nothing. It runs in the store's own image, which has bash and MinIO's client, and
# neither Python nor grep. Keys and secrets go by standard input: no list of processes shows them.
#
#   S3_ENDPOINT, S3_BUCKET            the store
#   S3_POLICY                         a file: deployments/policies/worker.json
#   S3_{ROOT,WORKER}_KEY_ID_FILE      files: the store's owner, and the user to be made
#   S3_{ROOT,WORKER}_SECRET_FILE
set -euo pipefail

fail() {
    echo "store_user: $1" >&2
    exit 1
}

owner=$(<"$S3_ROOT_KEY_ID_FILE") owner_secret=$(<"$S3_ROOT_SECRET_FILE")
worker=$(<"$S3_WORKER_KEY_ID_FILE") worker_secret=$(<"$S3_WORKER_SECRET_FILE")
[[ -n $owner && -n $owner_secret && -n $worker && -n $worker_secret ]] ||
    fail "an empty key or secret. Remove its file, and: secret_files.py make"
[[ $worker != "$owner" ]] ||
    fail "the workers have the owner's key. Remove S3_WORKER_KEY_ID and S3_WORKER_SECRET, and: secret_files.py make"

MC_CONFIG_DIR=$(mktemp -d)
export MC_CONFIG_DIR
trap 'rm -rf "$MC_CONFIG_DIR"' EXIT

# the store may still be starting
for ((left = ${STORE_TRIES:-60}; ; left--)); do
    if said=$(printf '%s\n%s\n' "$owner" "$owner_secret" | mc alias set store "$S3_ENDPOINT" 2>&1); then
        break
    fi
    ((left > 1)) || fail "$S3_ENDPOINT: the store's owner is not let in ($said)"
    sleep 1
done

policy=$(<"$S3_POLICY")
policy=${policy//BUCKET/"$S3_BUCKET"}
policy=${policy//MODELS/'*'}
printf '%s\n' "$policy" > "$MC_CONFIG_DIR/policy.json"
mc admin policy create store conveyor-worker "$MC_CONFIG_DIR/policy.json"
printf '%s\n%s\n' "$worker" "$worker_secret" | mc admin user add store > /dev/null
# attaching it twice is an error to some versions
case $(mc admin user info store "$worker") in
    *conveyor-worker*) ;;
    *) mc admin policy attach store conveyor-worker --user "$worker" ;;
esac
echo "store_user: $worker may do what the policy conveyor-worker says in $S3_BUCKET"
