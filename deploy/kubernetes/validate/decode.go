package main

import (
	"bytes"
	"fmt"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// render makes the objects of a kustomization: YAML documents.
func render(folder string) ([]byte, error) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", folder, err)
	}
	return made.AsYaml()
}

// types makes an empty object of each API that the manifests may use.
var types = map[string]func() meta.Object{
	"v1/ConfigMap":                            func() meta.Object { return new(core.ConfigMap) },
	"v1/Namespace":                            func() meta.Object { return new(core.Namespace) },
	"v1/Service":                              func() meta.Object { return new(core.Service) },
	"v1/ServiceAccount":                       func() meta.Object { return new(core.ServiceAccount) },
	"apps/v1/Deployment":                      func() meta.Object { return new(apps.Deployment) },
	"batch/v1/Job":                            func() meta.Object { return new(batch.Job) },
	"networking.k8s.io/v1/NetworkPolicy":      func() meta.Object { return new(networking.NetworkPolicy) },
	"policy/v1/PodDisruptionBudget":           func() meta.Object { return new(policy.PodDisruptionBudget) },
	"monitoring.coreos.com/v1/PrometheusRule": func() meta.Object { return new(monitoring.PrometheusRule) },
	"monitoring.coreos.com/v1/ServiceMonitor": func() meta.Object { return new(monitoring.ServiceMonitor) },
	"keda.sh/v1alpha1/ScaledObject":           func() meta.Object { return new(scaledObject) },
	"keda.sh/v1alpha1/TriggerAuthentication":  func() meta.Object { return new(triggerAuthentication) },
}

// An object is one of the rendered ones.
type object struct {
	kind  string // "Deployment"
	typed meta.Object
}

func (o object) String() string { return o.kind + " " + o.typed.GetName() }

// decode reads YAML documents strictly: an unknown or repeated field is a problem, and so is an API it does not know.
func decode(text []byte) (objects []object, problems []string) {
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var head struct {
			meta.TypeMeta   `json:",inline"`
			meta.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal(document, &head); err != nil {
			problems = append(problems, fmt.Sprintf("not an object: %v", err))
			continue
		}
		name := head.Kind + " " + head.Name
		empty, known := types[head.APIVersion+"/"+head.Kind]
		if !known {
			problems = append(problems, fmt.Sprintf("%s: the API %s is not one that is validated here", name, head.APIVersion))
			continue
		}
		typed := empty()
		wrong := unmarshal(document, typed)
		for _, err := range wrong {
			problems = append(problems, fmt.Sprintf("%s: %v", name, err))
		}
		if len(wrong) > 0 {
			continue
		}
		objects = append(objects, object{head.Kind, typed})
	}
	return objects, problems
}

// unmarshal reads one document as the API server does under strict validation: letter case counts.
func unmarshal(document []byte, into any) []error {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return []error{err}
	}
	wrong, err := json.UnmarshalStrict(text, into)
	if err != nil {
		return []error{err}
	}
	return wrong
}

// all returns the objects of one type.
func all[T meta.Object](objects []object) []T {
	var some []T
	for _, o := range objects {
		if typed, ok := o.typed.(T); ok {
			some = append(some, typed)
		}
	}
	return some
}
