package events

import "strings"

// Topics as they are named without a prefix. An installation may put a prefix before every one of them, verbatim;
// functions of this package that take a topic say which form they expect.
const (
	TopicUsage        = "usage.events"
	TopicSubscription = "subscription.events"
	TopicCompany      = "company.events"

	TopicSubscriptionResults = "subscription.results"
	TopicCompanyResults      = "company.results"
	TopicCompanyConfig       = "company.config" // compacted
	TopicQuota               = "quota.events"
	TopicNotifications       = "notifications"
	TopicBillingExports      = "billing.exports"
	TopicBusinessMetrics     = "business.metrics"
	TopicMaintenance         = "maintenance.events"
)

// Types of input events.
const (
	TypeUsageRecorded = "usage.recorded.v1"
	TypeUsageVoided   = "usage.voided.v1" // this service's own

	TypeUpgradeRequested   = "subscription.upgrade_requested.v1"
	TypeDowngradeRequested = "subscription.downgrade_requested.v1"
	TypeCancelRequested    = "subscription.cancel_requested.v1"
	TypeRenewed            = "subscription.renewed.v1"
	TypeExpired            = "subscription.expired.v1"
	TypePaymentReceived    = "subscription.payment_received.v1"
	TypePaymentFailed      = "subscription.payment_failed.v1"
	TypeChangeWithdrawn    = "subscription.change_withdrawn.v1" // of the result as well
	TypeSubscriptionDue    = "subscription.due.v1"              // this service's own

	TypeCompanyRegistered      = "company.registered.v1"
	TypeConfigUpdated          = "company.config_updated.v1"
	TypeUserAdded              = "company.user_added.v1"
	TypeUserRemoved            = "company.user_removed.v1"
	TypeUserErasureRequested   = "company.user_erasure_requested.v1"
	TypeSchemaUpgradeRequested = "company.schema_upgrade_requested.v1"
	TypeUsageVoidRequested     = "company.usage_void_requested.v1"
	TypeCompanyClosed          = "company.closed.v1"
	TypeLimitsOverridden       = "company.limits_overridden.v1"
	TypeCompanyDue             = "company.due.v1" // this service's own
)

// Types of output events.
const (
	TypeSubscriptionCreated    = "subscription.created.v1"
	TypeUpgraded               = "subscription.upgraded.v1"
	TypeDowngraded             = "subscription.downgraded.v1"
	TypeDowngradeScheduled     = "subscription.downgrade_scheduled.v1"
	TypeCancellationScheduled  = "subscription.cancellation_scheduled.v1"
	TypeCancelled              = "subscription.cancelled.v1"
	TypeRenewalRecorded        = "subscription.renewal_recorded.v1"
	TypeExpiryHandled          = "subscription.expiry_handled.v1"
	TypePaymentRecorded        = "subscription.payment_recorded.v1"
	TypePaymentFailureRecorded = "subscription.payment_failure_recorded.v1"
	TypeSubscriptionRejected   = "subscription.rejected.v1"

	TypeCompanyCreated     = "company.created.v1"
	TypeUserProvisioned    = "company.user_provisioned.v1"
	TypeUserDeprovisioned  = "company.user_deprovisioned.v1"
	TypeUserErased         = "company.user_erased.v1"
	TypeSchemaUpgraded     = "company.schema_upgraded.v1"
	TypeLimitsChanged      = "company.limits_changed.v1"
	TypeCompanyUsageVoided = "company.usage_voided.v1"
	TypeCompanyArchived    = "company.archived.v1"
	TypeCompanyRejected    = "company.rejected.v1"

	TypeConfigChanged = "company.config_changed.v1"

	TypeQuotaThresholdReached = "quota.threshold_reached.v1"
	TypeQuotaExceeded         = "quota.exceeded.v1"

	TypeNotificationRequested = "notification.requested.v1"
	TypeBillingExportReady    = "billing.export_ready.v1"

	TypeBusinessMetricsReported = "business.metrics_reported.v1"
	TypeUpsellIdentified        = "upsell.opportunity_identified.v1"
	TypeChurnRiskIdentified     = "churn.risk_identified.v1"

	TypeRetentionDue  = "maintenance.retention_due.v1"
	TypeRetentionDone = "maintenance.retention_done.v1"
	TypeStorageDue    = "maintenance.storage_due.v1"
	TypeStorageDone   = "maintenance.storage_done.v1"
	TypeBackupDue     = "maintenance.backup_due.v1"
	TypeBackupDone    = "maintenance.backup_done.v1"
	TypeDriftDue      = "maintenance.drift_due.v1"
	TypeDriftDone     = "maintenance.drift_done.v1"

	TypeBillingExportDue    = "maintenance.billing_export_due.v1"
	TypeBillingExportDone   = "maintenance.billing_export_done.v1"
	TypeRecommendationsDue  = "maintenance.recommendations_due.v1"
	TypeRecommendationsDone = "maintenance.recommendations_done.v1"
	TypeBusinessMetricsDue  = "maintenance.business_metrics_due.v1"
	TypeBusinessMetricsDone = "maintenance.business_metrics_done.v1"
)

// deadLetterSuffix is what the dead letter topic of an input topic ends with.
const deadLetterSuffix = ".dlq"

// DeadLetterTopic is the topic that takes the dead letters of topic, which is given with its prefix, if it has one.
func DeadLetterTopic(topic string) string { return topic + deadLetterSuffix }

// DeadLettersOf is the inverse of DeadLetterTopic. It is false when the topic is no dead letter topic.
func DeadLettersOf(topic string) (string, bool) { return strings.CutSuffix(topic, deadLetterSuffix) }

// A KeyRule says what the key of a topic's records has to be.
type KeyRule int

// The rules of keys.
const (
	KeyAny     KeyRule = iota // any key but none: a resend has the same one
	KeyCompany                // the company_id of the data
	KeyOutput                 // written by this service: the company_id or, where there is none, the job's name
)

// A TopicInfo is what belongs to one topic.
type TopicInfo struct {
	Name    string // without a prefix
	KeyRule KeyRule
	Input   bool     // read by this service; such a topic has a dead letter topic
	Types   []string // the event types it carries
}

// Topics lists every topic but the dead letter topics: inputs first, in the order in which they are documented.
func Topics() []TopicInfo {
	return []TopicInfo{
		{TopicUsage, KeyAny, true, []string{TypeUsageRecorded, TypeUsageVoided}},
		{TopicSubscription, KeyCompany, true, []string{
			TypeUpgradeRequested, TypeDowngradeRequested, TypeCancelRequested, TypeRenewed, TypeExpired,
			TypePaymentReceived, TypePaymentFailed, TypeChangeWithdrawn, TypeSubscriptionDue}},
		{TopicCompany, KeyCompany, true, []string{
			TypeCompanyRegistered, TypeConfigUpdated, TypeUserAdded, TypeUserRemoved, TypeUserErasureRequested,
			TypeSchemaUpgradeRequested, TypeLimitsOverridden, TypeUsageVoidRequested, TypeCompanyClosed, TypeCompanyDue}},
		{TopicSubscriptionResults, KeyOutput, false, []string{
			TypeSubscriptionCreated, TypeUpgraded, TypeDowngraded, TypeDowngradeScheduled, TypeCancellationScheduled,
			TypeCancelled, TypeRenewalRecorded, TypeExpiryHandled, TypePaymentRecorded, TypePaymentFailureRecorded,
			TypeChangeWithdrawn, TypeSubscriptionRejected}},
		{TopicCompanyResults, KeyOutput, false, []string{
			TypeCompanyCreated, TypeUserProvisioned, TypeUserDeprovisioned, TypeUserErased, TypeSchemaUpgraded,
			TypeLimitsChanged, TypeCompanyUsageVoided, TypeCompanyArchived, TypeCompanyRejected}},
		{TopicCompanyConfig, KeyOutput, false, []string{TypeConfigChanged}},
		{TopicQuota, KeyOutput, false, []string{TypeQuotaThresholdReached, TypeQuotaExceeded}},
		{TopicNotifications, KeyOutput, false, []string{TypeNotificationRequested}},
		{TopicBillingExports, KeyOutput, false, []string{TypeBillingExportReady}},
		{TopicBusinessMetrics, KeyOutput, false, []string{
			TypeBusinessMetricsReported, TypeUpsellIdentified, TypeChurnRiskIdentified}},
		{TopicMaintenance, KeyOutput, true, []string{
			TypeRetentionDue, TypeRetentionDone, TypeStorageDue, TypeStorageDone, TypeBackupDue, TypeBackupDone,
			TypeDriftDue, TypeDriftDone, TypeBillingExportDue, TypeBillingExportDone, TypeRecommendationsDue, TypeRecommendationsDone,
			TypeBusinessMetricsDue, TypeBusinessMetricsDone}},
	}
}

// TopicOf is the topic, without prefix, that carries a type; false for an unknown type.
func TopicOf(eventType string) (string, bool) {
	for _, t := range Topics() {
		for _, name := range t.Types {
			if name == eventType {
				return t.Name, true
			}
		}
	}
	return "", false
}
