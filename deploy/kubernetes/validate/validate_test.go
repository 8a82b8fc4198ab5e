package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is rendered to testdata")

// rendered are the kustomizations and where their objects are kept: the tests of ./deploy hold those against the service.
var rendered = map[string]string{"../base": "testdata/base.yaml", "../overlays/production": "testdata/production.yaml"}

func mustRender(t *testing.T, folder string) string {
	t.Helper()
	text, err := render(folder)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRender_ObjectsAreThoseInTestdata(t *testing.T) {
	t.Parallel()
	for folder, golden := range rendered {
		text := mustRender(t, folder)
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("%s no longer renders %s: run go test . -update here and look at the difference", folder, golden)
		}
	}
}

func TestValidate_FindsNothing(t *testing.T) {
	t.Parallel()
	for folder := range rendered {
		problems, count := validate(folder)
		for _, p := range problems {
			t.Errorf("%s: %s", folder, p)
		}
		if count < 20 {
			t.Errorf("%s: only %d objects", folder, count)
		}
	}
}

// Every fault that is put in must be found, or the test above says nothing.
func TestValidate_FindsEveryFault(t *testing.T) {
	t.Parallel()
	text := mustRender(t, "../overlays/production")
	for _, c := range []struct{ old, new, finds string }{
		{"readinessProbe:", "readynessProbe:", `unknown field "spec.template.spec.containers[0].readynessProbe"`},
		{"  replicas: 3", "  Replicas: 3", `unknown field "spec.Replicas"`},
		{"  replicas: 3", "  replicas: three", "cannot unmarshal string"},
		{"  replicas: 3", "  replicas: 3\n  replicas: 4", "already set in map"},
		{"memory: 1Gi", "memory: 1 GB", "quantities must match"},
		{"  clusterIP: None", "  clusterIp: None", `unknown field "spec.clusterIp"`},
		{"scrapeTimeout:", "timeout:", `ServiceMonitor tenantflow: unknown field "spec.endpoints[0].timeout"`},
		{"lagThreshold:", "lagTreshold:", `unknown field "spec.triggers[0].metadata.lagTreshold"`},
		{"maxReplicaCount:", "maxReplicas:", `unknown field "spec.maxReplicas"`},
		{"apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n", "the API policy/v1beta1 is not one"},
		{"    readOnlyRootFilesystem: true", "    readOnlyRootFilesystem: false", "could write to its root file system"},
		{"        runAsNonRoot: true", "        runAsNonRoot: false", `not within the policy "restricted"`},
		{"            - ALL", "            - NET_RAW", `not within the policy "restricted"`},
		{"          type: RuntimeDefault", "          type: Unconfined", `not within the policy "restricted"`},
		{"      enableServiceLinks: false\n", "", "enableServiceLinks is not false"},
		{"      automountServiceAccountToken: false\n", "", "the account's token is mounted"},
		{"name: tenantflow-dns\n", "name: tenantflow-kafka\n", "NetworkPolicy tenantflow-kafka is there twice"},
		{"            name: tenantflow-kafka-", "            name: lost-", "takes its environment from what is not there"},
		{"        - mountPath: /etc/tenantflow/secrets\n          name: secrets\n", "        - mountPath: /etc/tenantflow/secrets\n          name: lost\n", "there is no volume lost"},
		{"      serviceAccountName: tenantflow\n", "      serviceAccountName: lost\n", `there is no ServiceAccount "lost"`},
		{"            path: /livez\n", "            path: /readyz\n", "probe asks /readyz, want /livez"},
		{"containerPort: 8080\n          name: http", "containerPort: 8080\n          name: web", "probe asks port http"},
		{"    targetPort: http\n  publishNotReadyAddresses", "    targetPort: web\n  publishNotReadyAddresses", "has no port web"},
		{"  selector:\n    app.kubernetes.io/component: api\n", "  selector:\n    app.kubernetes.io/component: web\n", "Service tenantflow-api selects no pods"},
		{"    port: http\n    scrapeTimeout", "    port: web\n    scrapeTimeout", `has no port "web"`},
		{"  jobLabel: app.kubernetes.io/name", "  jobLabel: job", `no label "job"`},
		{"    - port: 8080\n      protocol: TCP\n  podSelector", "    - port: 8081\n      protocol: TCP\n  podSelector", "has no port 8081"},
		{"  policyTypes:\n  - Ingress\n  - Egress\n", "  policyTypes:\n  - Ingress\n", "no NetworkPolicy denies its pods"},
		{"    to:\n    - ipBlock:\n        cidr: 192.0.2.16/28\n", "", "lets pods reach anything"},
		{"kind: Deployment\n    name: tenantflow-quota", "kind: Deployment\n    name: tenantflow-count", `there is no Deployment "tenantflow-count"`},
		{"          stabilizationWindowSeconds: 600", "          stabilizationWindowSeconds: 60", "before ten minutes"},
		{`ensureEvenDistributionOfPartitions: "true"`, `ensureEvenDistributionOfPartitions: "false"`, "unevenly"},
		{"  namespace: tenantflow\n", "  namespace: default\n", "in several namespaces"},
	} {
		faulty := strings.Replace(text, c.old, c.new, 1)
		if faulty == text {
			t.Errorf("nothing has %q to put a fault in its place", c.old)
			continue
		}
		objects, problems := decode([]byte(faulty))
		problems = append(problems, check(objects)...)
		if !strings.Contains(strings.Join(problems, "\n"), c.finds) {
			t.Errorf("%q in place of %q: got %q, want one with %q", c.new, c.old, problems, c.finds)
		}
	}
}

// docs/kubernetes.md has the command that makes this object.
func TestAlerts_MakeAPrometheusRule(t *testing.T) {
	t.Parallel()
	alerts, err := os.ReadFile(filepath.Join("..", "..", "prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var rule strings.Builder
	rule.WriteString("apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: tenantflow\nspec:\n")
	for line := range strings.Lines(string(alerts)) {
		rule.WriteString("  " + line)
	}
	if _, problems := decode([]byte(rule.String())); len(problems) > 0 {
		t.Errorf("got %q", problems)
	}
}
