package main

import (
	autoscaling "k8s.io/api/autoscaling/v2"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is used of KEDA's API keda.sh/v1alpha1, written down here because its module brings most of a controller along. A
// field that is not here is a problem, whether or not KEDA has it.

type scaledObject struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`

	Spec struct {
		ScaleTargetRef struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Name       string `json:"name"`
		} `json:"scaleTargetRef"`
		PollingInterval int32 `json:"pollingInterval"` // seconds
		MinReplicaCount int32 `json:"minReplicaCount"`
		MaxReplicaCount int32 `json:"maxReplicaCount"`
		Fallback        struct {
			FailureThreshold int32  `json:"failureThreshold"`
			Replicas         int32  `json:"replicas"`
			Behavior         string `json:"behavior"`
		} `json:"fallback"`
		Advanced struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior autoscaling.HorizontalPodAutoscalerBehavior `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type              string                       `json:"type"`
			MetricType        autoscaling.MetricTargetType `json:"metricType"`
			Metadata          kafkaTrigger                 `json:"metadata"`
			AuthenticationRef *struct {
				Name string `json:"name"`
			} `json:"authenticationRef"`
		} `json:"triggers"`
	} `json:"spec"`
}

// A kafkaTrigger holds settings of KEDA's Kafka scaler, all of them strings.
type kafkaTrigger struct {
	BootstrapServers                   string `json:"bootstrapServers"`
	Topic                              string `json:"topic"`
	ConsumerGroup                      string `json:"consumerGroup"`
	LagThreshold                       string `json:"lagThreshold"`
	ActivationLagThreshold             string `json:"activationLagThreshold"`
	OffsetResetPolicy                  string `json:"offsetResetPolicy"`
	AllowIdleConsumers                 string `json:"allowIdleConsumers"`
	ExcludePersistentLag               string `json:"excludePersistentLag"`
	LimitToPartitionsWithLag           string `json:"limitToPartitionsWithLag"`
	EnsureEvenDistributionOfPartitions string `json:"ensureEvenDistributionOfPartitions"`
	SASL                               string `json:"sasl"`
	TLS                                string `json:"tls"`
}

type triggerAuthentication struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`

	Spec struct {
		SecretTargetRef []struct {
			Parameter string `json:"parameter"`
			Name      string `json:"name"`
			Key       string `json:"key"`
		} `json:"secretTargetRef"`
	} `json:"spec"`
}
