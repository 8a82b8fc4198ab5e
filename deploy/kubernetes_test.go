package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tenantflow/events"
	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/config"
	running "tenantflow/internal/service"
)

// A manifest holds the parts of a Kubernetes object that the tests here hold against the service. Whether it is a valid
// object is the business of kubernetes/validate, a module of its own, which also keeps testdata equal to what is rendered.
type manifest struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
	Data map[string]string `yaml:"data"` // of a ConfigMap
	Spec struct {
		Replicas int `yaml:"replicas"`
		Template struct {
			Spec podSpec `yaml:"spec"`
		} `yaml:"template"`
		Ports []struct {
			Port int `yaml:"port"`
		} `yaml:"ports"`
		// Of a ServiceMonitor.
		JobLabel string `yaml:"jobLabel"`
		// Of a NetworkPolicy.
		PodSelector struct {
			MatchExpressions []struct {
				Values []string `yaml:"values"`
			} `yaml:"matchExpressions"`
		} `yaml:"podSelector"`
		Egress []struct {
			Ports []struct {
				Port int `yaml:"port"`
			} `yaml:"ports"`
		} `yaml:"egress"`
		// Of a ScaledObject.
		ScaleTargetRef struct {
			Name string `yaml:"name"`
		} `yaml:"scaleTargetRef"`
		MaxReplicaCount int `yaml:"maxReplicaCount"`
		Triggers        []struct {
			Metadata map[string]string `yaml:"metadata"`
		} `yaml:"triggers"`
	} `yaml:"spec"`
}

type podSpec struct {
	Grace      int `yaml:"terminationGracePeriodSeconds"`
	Containers []struct {
		Args    []string `yaml:"args"`
		EnvFrom []struct {
			ConfigMapRef struct {
				Name string `yaml:"name"`
			} `yaml:"configMapRef"`
		} `yaml:"envFrom"`
		Env []struct {
			Name  string `yaml:"name"`
			Value string `yaml:"value"`
		} `yaml:"env"`
		Ports []struct {
			ContainerPort int `yaml:"containerPort"`
		} `yaml:"ports"`
		VolumeMounts []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
		Lifecycle struct {
			PreStop struct {
				Sleep struct {
					Seconds int `yaml:"seconds"`
				} `yaml:"sleep"`
			} `yaml:"preStop"`
		} `yaml:"lifecycle"`
	} `yaml:"containers"`
	SecurityContext struct {
		RunAsUser  int `yaml:"runAsUser"`
		RunAsGroup int `yaml:"runAsGroup"`
	} `yaml:"securityContext"`
	Volumes []struct {
		Name   string `yaml:"name"`
		Secret struct {
			SecretName string `yaml:"secretName"`
			Items      []struct {
				Key  string `yaml:"key"`
				Path string `yaml:"path"`
			} `yaml:"items"`
		} `yaml:"secret"`
	} `yaml:"volumes"`
}

// secrets are values as the Secrets of docs/kubernetes.md have them, by key.
var secrets = map[string]string{
	"clickhouse-dsn": "https://tenantflow:secret@clickhouse.clickhouse.svc:8443/tenantflow?secure=true", "postgres-dsn": "postgres://tenantflow:secret@192.0.2.17:5432/tenantflow",
	"dragonfly-url": "rediss://:secret@dragonfly.dragonfly.svc:6379/0", "kafka-sasl-password": "secret", "tokens.json": "", "ca.crt": "",
}

// eachRendering runs a test with the objects of base and of the overlay.
func eachRendering(t *testing.T, test func(t *testing.T, objects []manifest)) {
	t.Helper()
	for _, name := range []string{"base", "production"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var objects []manifest
			decoder := yaml.NewDecoder(bytes.NewReader([]byte(readFile(t, filepath.Join("kubernetes", "validate", "testdata", name+".yaml")))))
			for {
				var m manifest
				if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				objects = append(objects, m)
			}
			if len(objects) < 20 {
				t.Fatalf("only %d objects were found", len(objects))
			}
			test(t, objects)
		})
	}
}

// ofKind returns the objects of one kind.
func ofKind(objects []manifest, kind string) []manifest {
	return slices.DeleteFunc(slices.Clone(objects), func(m manifest) bool { return m.Kind != kind })
}

// only returns the parts that a Deployment runs, and the stores they need; for a Job what migrate needs.
func (m *manifest) only(t *testing.T) (parts []string, stores []config.Store) {
	t.Helper()
	args := m.Spec.Template.Spec.Containers[0].Args
	if args[0] == "migrate" {
		return nil, []config.Store{config.Kafka, config.ClickHouse, config.Postgres}
	}
	if len(args) != 3 || args[0] != "run" || args[1] != "--only" {
		t.Fatalf("%s runs %q", m.Metadata.Name, args)
	}
	chosen, _, err := running.Choose(running.Parts(), strings.Split(args[2], ","))
	if err != nil {
		t.Fatalf("%s: %v", m.Metadata.Name, err)
	}
	for _, p := range chosen {
		parts = append(parts, p.Name)
	}
	return parts, running.Stores(chosen)
}

// environ returns the environment of a container as Kubernetes makes it, with the image's own. The files that are named are
// those that its volumes hold, made in a folder of the test.
func (m *manifest) environ(t *testing.T, objects []manifest) []string {
	t.Helper()
	pod := m.Spec.Template.Spec
	files := map[string]string{} // by their path in the container
	root := t.TempDir()
	for _, mount := range pod.Containers[0].VolumeMounts {
		for _, v := range pod.Volumes {
			for _, item := range v.Secret.Items {
				if v.Name != mount.Name {
					continue
				}
				value, known := secrets[item.Key]
				if !known {
					t.Errorf("%s: the key %q of Secret %s is not documented", m.Metadata.Name, item.Key, v.Secret.SecretName)
				}
				switch item.Key {
				case "tokens.json":
					value = readFile(t, "tokens.json")
				case "ca.crt":
					value = string(certstest.NewAuthority(t, "the cluster's").PEM)
				}
				path := filepath.Join(root, v.Name+"-"+item.Path)
				if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				files[mount.MountPath+"/"+item.Path] = path
			}
		}
	}
	values := map[string]string{}
	for k, v := range dockerfile(t).environment {
		values[k] = v
	}
	for _, from := range pod.Containers[0].EnvFrom {
		for _, c := range ofKind(objects, "ConfigMap") {
			if c.Metadata.Name == from.ConfigMapRef.Name {
				for k, v := range c.Data {
					values[k] = v
				}
			}
		}
	}
	for _, v := range pod.Containers[0].Env {
		values[v.Name] = v.Value
	}
	var environ []string
	named := map[string]bool{}
	for k, v := range values {
		if path, ok := files[v]; ok {
			named[v], v = true, path
		}
		environ = append(environ, k+"="+v)
	}
	for path := range files {
		if named[path] {
			continue
		}
		t.Errorf("%s is mounted into %s, and no setting names it", path, m.Metadata.Name)
	}
	return environ
}

func (m *manifest) config(t *testing.T, objects []manifest) *config.Config {
	t.Helper()
	_, stores := m.only(t)
	cfg, err := config.Load(m.environ(t, objects), stores...)
	if err != nil {
		t.Fatalf("%s: %v", m.Metadata.Name, err)
	}
	return cfg
}

// workloads returns what makes pods: the Deployments and the Job.
func workloads(objects []manifest) []manifest {
	return append(ofKind(objects, "Deployment"), ofKind(objects, "Job")...)
}

func TestKubernetes_EveryPartRunsExactlyOnce(t *testing.T) {
	t.Parallel()
	eachRendering(t, func(t *testing.T, objects []manifest) {
		var got, want []string
		for _, d := range ofKind(objects, "Deployment") {
			parts, _ := d.only(t)
			got = append(got, parts...)
		}
		for _, p := range running.Parts() {
			want = append(want, p.Name)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the Deployments run %v, want %v", got, want)
		}
	})
}

// Names, values, files and addresses, as `tenantflow config check` would look at them.
func TestKubernetes_EveryEnvironmentIsAValidConfiguration(t *testing.T) {
	t.Parallel()
	eachRendering(t, func(t *testing.T, objects []manifest) {
		for _, m := range workloads(objects) {
			cfg := m.config(t, objects)
			pod := m.Spec.Template.Spec
			for _, p := range pod.Containers[0].Ports {
				if _, port, _ := net.SplitHostPort(cfg.HTTPAddr); port != fmt.Sprint(p.ContainerPort) {
					t.Errorf("%s listens on %s, and its port is %d", m.Metadata.Name, cfg.HTTPAddr, p.ContainerPort)
				}
			}
			pause := time.Duration(pod.Containers[0].Lifecycle.PreStop.Sleep.Seconds) * time.Second
			grace := time.Duration(pod.Grace) * time.Second
			if m.Kind == "Deployment" && grace < pause+cfg.ShutdownTimeout+5*time.Second {
				t.Errorf("%s: a stop may take %s after a pause of %s, and is cut off after %s", m.Metadata.Name, cfg.ShutdownTimeout, pause, grace)
			}
			if user := fmt.Sprintf("%d:%d", pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup); user != dockerfile(t).user {
				t.Errorf("%s runs as %s, and the image as %s", m.Metadata.Name, user, dockerfile(t).user)
			}
		}
	})
}

// Without enableServiceLinks: false, which kubernetes/validate asks for, these variables would be in every pod.
func TestKubernetes_VariablesOfServicesWouldBeRefused(t *testing.T) {
	t.Parallel()
	eachRendering(t, func(t *testing.T, objects []manifest) {
		for _, d := range ofKind(objects, "Deployment") {
			environ := d.environ(t, objects)
			for _, s := range ofKind(objects, "Service") {
				environ = append(environ, strings.ToUpper(strings.ReplaceAll(s.Metadata.Name, "-", "_"))+"_SERVICE_HOST=192.0.2.1")
			}
			_, stores := d.only(t)
			if _, err := config.Load(environ, stores...); err == nil || !strings.Contains(err.Error(), "TENANTFLOW_API_SERVICE_HOST: there is no such setting") {
				t.Errorf("%s: got %v; if such names are taken now, enableServiceLinks no longer matters", d.Metadata.Name, err)
			}
		}
	})
}

// What a part needs it can reach, and nothing else but the counters that jobs looks at where there are any.
func TestKubernetes_PodsReachTheirOwnStoresOnly(t *testing.T) {
	t.Parallel()
	eachRendering(t, func(t *testing.T, objects []manifest) {
		for _, m := range workloads(objects) {
			component := m.Metadata.Labels["app.kubernetes.io/component"]
			_, stores := m.only(t)
			switch component {
			case "jobs":
				stores = append(stores, config.Dragonfly)
			case "api": // the operations page
				stores = append(stores, config.Kafka, config.ClickHouse)
			case "tenants": // usage that is to be taken back
				stores = append(stores, config.ClickHouse)
			}
			cfg := m.config(t, objects)
			for _, store := range []config.Store{config.Kafka, config.ClickHouse, config.Postgres, config.Dragonfly} {
				policy := slices.IndexFunc(objects, func(o manifest) bool {
					return o.Kind == "NetworkPolicy" && o.Metadata.Name == "tenantflow-"+string(store)
				})
				if policy < 0 {
					t.Fatalf("no NetworkPolicy for %s", store)
				}
				n := objects[policy].Spec
				reaches := slices.Contains(n.PodSelector.MatchExpressions[0].Values, component)
				knows := map[config.Store]bool{
					config.Kafka: len(cfg.KafkaBrokers) > 0, config.ClickHouse: cfg.ClickHouseDSN != "", config.Postgres: cfg.PostgresDSN != "", config.Dragonfly: cfg.DragonflyURL != "",
				}[store]
				if needs := slices.Contains(stores, store); reaches != needs || knows != needs {
					t.Errorf("%s: needs %s: %t, reaches it: %t, knows where it is: %t", m.Metadata.Name, store, needs, reaches, knows)
				}
				for _, broker := range cfg.KafkaBrokers {
					if _, port, _ := net.SplitHostPort(broker); store == config.Kafka && port != fmt.Sprint(n.Egress[0].Ports[0].Port) {
						t.Errorf("%s: the broker %s can't be reached through port %d", m.Metadata.Name, broker, n.Egress[0].Ports[0].Port)
					}
				}
			}
		}
	})
}

// More members than partitions wait, and a scaler that looks elsewhere scales by nothing.
func TestKubernetes_ReplicasAreAtMostThePartitions(t *testing.T) {
	t.Parallel()
	eachRendering(t, func(t *testing.T, objects []manifest) {
		scalers := map[string]manifest{}
		for _, s := range ofKind(objects, "ScaledObject") {
			scalers[s.Spec.ScaleTargetRef.Name] = s
		}
		for _, d := range ofKind(objects, "Deployment") {
			parts, stores := d.only(t)
			cfg := d.config(t, objects)
			scaler, scaled := scalers[d.Metadata.Name]
			delete(scalers, d.Metadata.Name)
			if slices.Contains(stores, config.Kafka) && max(d.Spec.Replicas, scaler.Spec.MaxReplicaCount) > cfg.TopicPartitions {
				t.Errorf("%s: %d pods, at most %d, for %d partitions", d.Metadata.Name, d.Spec.Replicas, scaler.Spec.MaxReplicaCount, cfg.TopicPartitions)
			}
			if !scaled {
				continue
			}
			got := scaler.Spec.Triggers[0].Metadata
			want := map[string]string{
				"bootstrapServers": strings.Join(cfg.KafkaBrokers, ","), "topic": cfg.TopicPrefix + events.TopicUsage, "consumerGroup": cfg.GroupPrefix + "." + parts[0],
				"sasl": strings.ToLower(strings.NewReplacer("SCRAM-SHA-", "scram_sha", "PLAIN", "plaintext").Replace(cfg.KafkaSASLMechanism)),
				"tls":  map[bool]string{true: "enable", false: ""}[cfg.KafkaTLS],
			}
			for k := range want {
				if got[k] != want[k] || len(parts) != 1 {
					t.Errorf("%s of the scaler of %v is %q, want %q", k, parts, got[k], want[k])
				}
			}
		}
		if len(scalers) > 0 {
			t.Errorf("scalers without a Deployment: %v", scalers)
		}
	})
}

func TestKubernetes_PrometheusCallsTheJobAsAlertsDo(t *testing.T) {
	t.Parallel()
	if !strings.Contains(readFile(t, "prometheus/alerts.yml"), `up{job="tenantflow"}`) {
		t.Fatal("the alerts ask for another job")
	}
	eachRendering(t, func(t *testing.T, objects []manifest) {
		for _, m := range ofKind(objects, "ServiceMonitor") {
			for _, s := range ofKind(objects, "Service") {
				if job := s.Metadata.Labels[m.Spec.JobLabel]; job != "tenantflow" {
					t.Errorf("the job is called %q", job)
				}
			}
		}
	})
}

// The document tells which Secrets to make; a key that is missing there keeps pods from starting.
func TestKubernetes_EverySecretIsDocumented(t *testing.T) {
	t.Parallel()
	text := readFile(t, "../docs/kubernetes.md")
	eachRendering(t, func(t *testing.T, objects []manifest) {
		for _, m := range workloads(objects) {
			for _, v := range m.Spec.Template.Spec.Volumes {
				for _, item := range v.Secret.Items {
					if !strings.Contains(text, "`"+v.Secret.SecretName+"`") || !strings.Contains(text, "`"+item.Key+"`") {
						t.Errorf("docs/kubernetes.md does not say that Secret %s has a key %s", v.Secret.SecretName, item.Key)
					}
				}
			}
		}
	})
}
