package main

import (
	"fmt"

	core "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	security "k8s.io/pod-security-admission/policy"
)

// restricted is Kubernetes' own judge of the policy "restricted".
var restricted = func() security.Evaluator {
	e, err := security.NewEvaluator(security.DefaultChecks(), nil)
	if err != nil {
		panic(fmt.Sprint("its own checks contradict each other: ", err))
	}
	return e
}()

// checkPod checks what a pod may do and how it is looked after.
func (r *report) checkPod(w workload) {
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range restricted.EvaluatePod(level, &w.pod.ObjectMeta, &w.pod.Spec) {
		r.want(result.Allowed, "%s: not within the policy \"restricted\": %s: %s", w.name, result.ForbiddenReason, result.ForbiddenDetail)
	}
	spec := w.pod.Spec
	r.want(spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken, "%s: the account's token is mounted", w.name)
	r.want(spec.EnableServiceLinks != nil && !*spec.EnableServiceLinks, "%s: enableServiceLinks is not false: variables of Services would be taken for settings", w.name)
	for _, c := range spec.Containers {
		r.want(c.SecurityContext != nil && c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem, "%s: could write to its root file system", w.name)
		r.want(!c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero(), "%s: requests no CPU or memory", w.name)
		limit := c.Resources.Limits.Memory()
		r.want(limit.Cmp(*c.Resources.Requests.Memory()) >= 0, "%s: its memory limit %s is below its request", w.name, limit)
		for name, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if len(c.Ports) == 0 {
				continue // a Job runs until it is done, and nothing probes it
			}
			if probe == nil || probe.HTTPGet == nil {
				r.want(false, "%s: has no %s probe by HTTP", w.name, name)
				continue
			}
			r.want(has(c.Ports, probe.HTTPGet.Port), "%s: the %s probe asks port %s", w.name, name, probe.HTTPGet.Port.String())
			path := map[bool]string{true: "/readyz", false: "/livez"}[name == "readiness"]
			r.want(probe.HTTPGet.Path == path, "%s: the %s probe asks %s, want %s", w.name, name, probe.HTTPGet.Path, path)
		}
		for _, v := range c.Env {
			r.want(v.ValueFrom == nil, "%s: %s is not written down here; a secret comes from a file", w.name, v.Name)
		}
	}
	if len(containerPorts(w.pod)) > 0 {
		r.want(len(spec.TopologySpreadConstraints) > 0, "%s: its pods may all be on one node", w.name)
		for _, s := range spec.TopologySpreadConstraints {
			r.want(selects(s.LabelSelector, w.pod.Labels), "%s: spreads pods that are not its own", w.name)
		}
	}
}
