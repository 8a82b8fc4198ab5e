#!/bin/sh
# What the service's login may do in Kafka, apart from the login that migrates. An administrator runs this once, against brokers
# whose authorizer is on (authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer):
#
#   BOOTSTRAP=kafka-1:9093 COMMAND_CONFIG=admin.properties sh kafka.sh
#
# Granting what is granted already changes nothing. There are no transactional ids: the service uses no transactions. Give each
# publisher Write and Describe on its input topic, each reader Read on its topics and its group, and nothing to anyone else.
set -eu

BOOTSTRAP=${BOOTSTRAP:-127.0.0.1:9092}
COMMAND_CONFIG=${COMMAND_CONFIG:-}                # the administrator's own login, a properties file
SERVICE=${SERVICE:-User:tenantflow}               # runs `tenantflow run`, `verify`, `replay`, `dlq`
MIGRATE=${MIGRATE:-User:tenantflow-migrate}       # runs `tenantflow migrate`
TOPIC_PREFIX=${TOPIC_PREFIX:-}                    # TENANTFLOW_TOPIC_PREFIX
GROUP_PREFIX=${GROUP_PREFIX:-tenantflow}          # TENANTFLOW_GROUP_PREFIX
KAFKA_ACLS=${KAFKA_ACLS:-kafka-acls.sh}

grant() {
    $KAFKA_ACLS --bootstrap-server "$BOOTSTRAP" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} --add --allow-principal "$@"
}

# topics NAME... sets $list to the arguments that name these topics.
topics() {
    list=
    for name in "$@"; do
        list="$list --topic $TOPIC_PREFIX$name"
    done
}

# Read and written: the inputs (also by due events, replay and redrive), dead letters (written by the consumers, read by dlq), results
# (written by the consumers, read by verify).
topics usage.events usage.events.dlq subscription.events subscription.events.dlq company.events company.events.dlq \
    subscription.results company.results company.config quota.events notifications billing.exports business.metrics \
    maintenance.events maintenance.events.dlq
# shellcheck disable=SC2086 # a list
grant "$SERVICE" --operation Read --operation Write --operation Describe --operation DescribeConfigs $list

# The groups of the parts: tenantflow.usage and so on.
grant "$SERVICE" --operation Read --operation Describe --group "$GROUP_PREFIX." --resource-pattern-type prefixed

# migrate creates the topics that are missing, and looks at all.
topics usage.events usage.events.dlq subscription.events subscription.events.dlq company.events company.events.dlq \
    subscription.results company.results company.config quota.events notifications billing.exports business.metrics \
    maintenance.events maintenance.events.dlq
# shellcheck disable=SC2086
grant "$MIGRATE" --operation Create --operation Describe --operation DescribeConfigs $list
