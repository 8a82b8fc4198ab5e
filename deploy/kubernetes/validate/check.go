package main

import (
	"fmt"
	"maps"
	"slices"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A workload is something that makes pods.
type workload struct {
	name string // with its kind
	pod  *core.PodTemplateSpec
}

func workloads(objects []object) []workload {
	var some []workload
	for _, d := range all[*apps.Deployment](objects) {
		some = append(some, workload{"Deployment " + d.Name, &d.Spec.Template})
	}
	for _, j := range all[*batch.Job](objects) {
		some = append(some, workload{"Job " + j.Name, &j.Spec.Template})
	}
	return some
}

// A report collects problems.
type report struct{ problems []string }

// want notes a problem unless ok.
func (r *report) want(ok bool, format string, args ...any) {
	if !ok {
		r.problems = append(r.problems, fmt.Sprintf(format, args...))
	}
}

// check looks at what no type can say: that what an object names is there, and what its pods may do.
func check(objects []object) []string {
	r := &report{}
	r.checkNames(objects)
	pods := workloads(objects)
	r.want(len(pods) > 0, "there is no workload")
	for _, w := range pods {
		r.checkReferences(w, objects)
		r.checkPod(w)
	}
	for _, d := range all[*apps.Deployment](objects) {
		r.want(selects(d.Spec.Selector, d.Spec.Template.Labels), "Deployment %s: its selector does not select its own pods", d.Name)
		budgets := 0
		for _, b := range all[*policy.PodDisruptionBudget](objects) {
			if selects(b.Spec.Selector, d.Spec.Template.Labels) {
				budgets++
			}
		}
		// Two make every eviction fail.
		r.want(budgets == 1, "Deployment %s: %d PodDisruptionBudgets select its pods, want 1", d.Name, budgets)
	}
	r.checkSelectors(objects, pods)
	r.checkScaling(objects)
	return r.problems
}

// checkNames checks that all objects but a namespace are in one, and none is there twice.
func (r *report) checkNames(objects []object) {
	seen, namespaces := map[string]bool{}, map[string]bool{}
	for _, o := range objects {
		r.want(!seen[o.String()], "%s is there twice", o)
		seen[o.String()] = true
		if o.kind != "Namespace" {
			namespaces[o.typed.GetNamespace()] = true
		}
	}
	r.want(len(namespaces) <= 1, "the objects are in several namespaces: %v", slices.Sorted(maps.Keys(namespaces)))
}

// checkReferences checks that a pod's account, configuration and volumes are there.
func (r *report) checkReferences(w workload, objects []object) {
	there := map[string]bool{}
	for _, o := range objects {
		there[o.String()] = true
	}
	spec := w.pod.Spec
	r.want(there["ServiceAccount "+spec.ServiceAccountName], "%s: there is no ServiceAccount %q", w.name, spec.ServiceAccountName)
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range spec.Containers {
		for _, from := range c.EnvFrom {
			r.want(from.ConfigMapRef != nil && there["ConfigMap "+from.ConfigMapRef.Name], "%s: takes its environment from what is not there: %v", w.name, from.ConfigMapRef)
		}
		for _, m := range c.VolumeMounts {
			r.want(volumes[m.Name], "%s: there is no volume %s", w.name, m.Name)
			r.want(m.ReadOnly, "%s: could write to %s", w.name, m.MountPath)
		}
	}
}

// checkSelectors checks that whatever selects pods or Services selects some, and that the ports it names are theirs.
func (r *report) checkSelectors(objects []object, pods []workload) {
	services := all[*core.Service](objects)
	for _, s := range services {
		some := 0
		for _, w := range pods {
			ports := containerPorts(w.pod)
			// A Job's pods have no port: what selects all pods finds them too, and leaves them out when they end.
			if len(ports) == 0 || !selects(&meta.LabelSelector{MatchLabels: s.Spec.Selector}, w.pod.Labels) {
				continue
			}
			some++
			for _, p := range s.Spec.Ports {
				r.want(has(ports, p.TargetPort), "Service %s: %s has no port %s", s.Name, w.name, p.TargetPort.String())
			}
		}
		r.want(len(s.Spec.Selector) > 0 && some > 0, "Service %s selects no pods", s.Name)
	}
	for _, n := range all[*networking.NetworkPolicy](objects) {
		some := 0
		for _, w := range pods {
			if !selects(&n.Spec.PodSelector, w.pod.Labels) {
				continue
			}
			some++
			for _, in := range n.Spec.Ingress {
				for _, p := range in.Ports {
					ports := containerPorts(w.pod)
					r.want(len(ports) == 0 || p.Port != nil && has(ports, *p.Port), "NetworkPolicy %s: %s has no port %s", n.Name, w.name, p.Port)
				}
			}
		}
		r.want(some > 0, "NetworkPolicy %s selects no pods", n.Name)
		r.want(len(n.Spec.PolicyTypes) > 0, "NetworkPolicy %s: says nothing about its direction", n.Name)
		for _, rule := range n.Spec.Egress {
			r.want(len(rule.To) > 0 && len(rule.Ports) > 0, "NetworkPolicy %s: lets pods reach anything", n.Name)
		}
		for _, rule := range n.Spec.Ingress {
			r.want(len(rule.From) > 0 && len(rule.Ports) > 0, "NetworkPolicy %s: lets anything reach the pods", n.Name)
		}
	}
	for _, w := range pods {
		denied := slices.ContainsFunc(all[*networking.NetworkPolicy](objects), func(n *networking.NetworkPolicy) bool {
			both := slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeIngress) && slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeEgress)
			return both && len(n.Spec.Ingress)+len(n.Spec.Egress) == 0 && selects(&n.Spec.PodSelector, w.pod.Labels)
		})
		r.want(denied, "%s: no NetworkPolicy denies its pods what the others do not allow", w.name)
	}
	for _, m := range all[*monitoring.ServiceMonitor](objects) {
		some := 0
		for _, s := range services {
			if !selects(&m.Spec.Selector, s.Labels) {
				continue
			}
			some++
			for _, e := range m.Spec.Endpoints {
				named := slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == e.Port })
				r.want(named, "ServiceMonitor %s: Service %s has no port %q", m.Name, s.Name, e.Port)
			}
			r.want(s.Labels[m.Spec.JobLabel] != "", "ServiceMonitor %s: Service %s has no label %q to be called by", m.Name, s.Name, m.Spec.JobLabel)
		}
		r.want(some == 1, "ServiceMonitor %s selects %d Services, want 1: pods behind two would count twice", m.Name, some)
	}
}

// checkScaling checks that what is scaled is there, and that only one party sets the number of pods.
func (r *report) checkScaling(objects []object) {
	deployments, authentications := map[string]*apps.Deployment{}, map[string]bool{}
	for _, d := range all[*apps.Deployment](objects) {
		deployments[d.Name] = d
	}
	for _, a := range all[*triggerAuthentication](objects) {
		authentications[a.Name] = true
	}
	for _, s := range all[*scaledObject](objects) {
		d := deployments[s.Spec.ScaleTargetRef.Name]
		r.want(d != nil && s.Spec.ScaleTargetRef.Kind == "Deployment", "ScaledObject %s: there is no Deployment %q", s.Name, s.Spec.ScaleTargetRef.Name)
		if d != nil {
			r.want(d.Spec.Replicas == nil, "Deployment %s: says how many pods it has, and so does ScaledObject %s", d.Name, s.Name)
		}
		r.want(s.Spec.MinReplicaCount >= 1 && s.Spec.MinReplicaCount <= s.Spec.MaxReplicaCount, "ScaledObject %s: %d to %d pods", s.Name, s.Spec.MinReplicaCount, s.Spec.MaxReplicaCount)
		down := s.Spec.Advanced.HorizontalPodAutoscalerConfig.Behavior.ScaleDown
		r.want(down != nil && down.StabilizationWindowSeconds != nil && *down.StabilizationWindowSeconds >= 600, "ScaledObject %s: takes pods away before ten minutes have passed", s.Name)
		r.want(len(s.Spec.Triggers) == 1, "ScaledObject %s: %d triggers, want 1", s.Name, len(s.Spec.Triggers))
		for _, t := range s.Spec.Triggers {
			r.want(t.Type == "kafka", "ScaledObject %s: a trigger of type %q", s.Name, t.Type)
			r.want(t.AuthenticationRef == nil || authentications[t.AuthenticationRef.Name], "ScaledObject %s: there is no TriggerAuthentication %v", s.Name, t.AuthenticationRef)
			r.want((t.Metadata.SASL == "") == (t.AuthenticationRef == nil), "ScaledObject %s: SASL %q needs an authentication, and only that does", s.Name, t.Metadata.SASL)
			r.want(t.Metadata.EnsureEvenDistributionOfPartitions == "true", "ScaledObject %s: partitions would be shared out unevenly", s.Name)
		}
	}
}

// selects reports whether a selector selects an object by its labels. None at all selects nothing.
func selects(selector *meta.LabelSelector, of map[string]string) bool {
	s, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}

func containerPorts(pod *core.PodTemplateSpec) []core.ContainerPort {
	var ports []core.ContainerPort
	for _, c := range pod.Spec.Containers {
		ports = append(ports, c.Ports...)
	}
	return ports
}

// has reports whether a port, by name or number, is among those of containers.
func has(ports []core.ContainerPort, wanted intstr.IntOrString) bool {
	return slices.ContainsFunc(ports, func(p core.ContainerPort) bool {
		return wanted.Type == intstr.String && p.Name == wanted.StrVal || wanted.Type == intstr.Int && p.ContainerPort == wanted.IntVal
	})
}
