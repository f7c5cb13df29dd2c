#!/bin/sh
# Prints the Secrets of the overlay dev with random values, for `kubectl apply -f -`. Nothing is written to disk:
#   kubectl -n kubeflow get secret kfloop-state || infra/secrets.sh kubeflow | kubectl apply -f -
# Only where there are none yet: PostgreSQL keeps the password that it was made with.
set -eu
namespace=${1:?usage: infra/secrets.sh NAMESPACE}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
database=$(random)
secret() {
    name=$1
    shift
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s, labels: {app.kubernetes.io/part-of: kfloop}}\nstringData:\n' "$name" "$namespace"
    while [ $# -gt 0 ]; do
        printf '  %s: "%s"\n' "$1" "$2"
        shift 2
    done
}
secret kfloop-postgres password "$database"
secret kfloop-state url "postgresql+psycopg://kfloop:$database@kfloop-postgres:5432/kfloop"
secret kfloop-mlflow url "postgresql+psycopg://kfloop:$database@kfloop-postgres:5432/mlflow"
secret kfloop-s3 AWS_ACCESS_KEY_ID kfloop AWS_SECRET_ACCESS_KEY "$(random)"
secret kfloop-triton key "$(random)"
