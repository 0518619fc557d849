// Package deploy tests what deploy holds: that the files which are made of others are current, that the chart renders with the values it
// documents and refuses others, and that no right is greater than it should be.
package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../.."
	chart = "deploy/helm/gatehouse"
)

// helm runs the pinned Helm in the repository's root.
func helm(arguments ...string) (string, error) {
	command := exec.Command("go", append([]string{"tool", "-modfile=.ci/tools/go.mod", "helm"}, arguments...)...)
	command.Dir = root
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	if err := command.Run(); err != nil {
		return said.String(), err
	}
	return out.String(), nil
}

func template(values ...string) (string, error) {
	arguments := []string{"template", "gatehouse", chart, "--namespace", "gatehouse-system"}
	for _, v := range values {
		arguments = append(arguments, "--set-json", v)
	}
	return helm(arguments...)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestInstallIsCurrent renders the chart as `make generate` does.
func TestInstallIsCurrent(t *testing.T) {
	want, err := helm("template", "gatehouse", chart, "--namespace", "gatehouse-system", "--include-crds", "--set", "createNamespace=true")
	if err != nil {
		t.Fatalf("%v: %s", err, want)
	}
	header, got, ok := strings.Cut(read(t, "deploy/install.yaml"), "\n")
	if !ok || !strings.HasPrefix(header, "# ") || got != want {
		t.Error("deploy/install.yaml is not what the chart gives: run make generate")
	}
}

// TestCRDIsCurrent: the chart has a copy, because a chart holds its own files only, and so has the package that embeds the schemas.
func TestCRDIsCurrent(t *testing.T) {
	const name = "gatehouse.dev_gatewayparameters.yaml"
	for _, folder := range []string{chart + "/crds/", "controller/source/schema/crds/"} {
		if read(t, "deploy/crds/"+name) != read(t, folder+name) {
			t.Errorf("%s%s is not that of deploy/crds: run make generate", folder, name)
		}
	}
}

// TestInstallOrder: who applies the file from top to bottom has the CRD and the namespace before what needs them.
func TestInstallOrder(t *testing.T) {
	var kinds []string
	for _, document := range documents(t, read(t, "deploy/install.yaml")) {
		kinds = append(kinds, document.Kind)
	}
	want := []string{"CustomResourceDefinition", "Namespace", "PodDisruptionBudget", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role",
		"RoleBinding", "Service", "Deployment", "GatewayClass"}
	if !slices.Equal(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}
}

// document is one object of a rendered file.
type document struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	text     string
}

func documents(t *testing.T, text string) []document {
	t.Helper()
	var out []document
	for part := range strings.SplitSeq(text, "\n---\n") {
		var d document
		if err := yaml.Unmarshal([]byte(part), &d); err != nil {
			t.Fatalf("%v in\n%s", err, part)
		}
		if d.Kind != "" {
			d.text = part
			out = append(out, d)
		}
	}
	return out
}

func decode[T any](t *testing.T, list []document, kind, name string) *T {
	t.Helper()
	for _, d := range list {
		if d.Kind == kind && d.Metadata.Name == name {
			out := new(T)
			if err := yaml.UnmarshalStrict([]byte(d.text), out); err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			return out
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

func TestValues(t *testing.T) {
	tests := map[string]struct {
		values []string
		want   []string // what the result holds
		absent []string // what it does not
	}{
		"defaults": {
			want:   []string{"replicas: 2", `image: "gatehouse:0.1.0"`, "--proxy-image=gatehouse-proxy:0.1.0", "kind: PodDisruptionBudget", "kind: GatewayClass"},
			absent: []string{"kind: Namespace", "kind: GatewayParameters", "parametersRef"},
		},
		"one controller":     {values: []string{"replicas=1"}, want: []string{"replicas: 1"}, absent: []string{"kind: PodDisruptionBudget"}},
		"images":             {values: []string{`image={"repository":"mirror.example/a","tag":"1","pullPolicy":"Always"}`, `proxyImage={"repository":"mirror.example/b","tag":"2"}`}, want: []string{`image: "mirror.example/a:1"`, "imagePullPolicy: Always", "--proxy-image=mirror.example/b:2"}},
		"no class":           {values: []string{"gatewayClass.create=false"}, absent: []string{"kind: GatewayClass"}},
		"class's parameters": {values: []string{`gatewayClass={"name":"edge","parameters":{"replicas":3}}`}, want: []string{"kind: GatewayParameters", "parametersRef:", "  replicas: 3", "name: edge"}},
		"another name":       {values: []string{`controllerName="example.com/edge"`}, want: []string{"--controller-name=example.com/edge", "controllerName: example.com/edge"}, absent: []string{"gatehouse.dev/controller"}},
		"scheduling":         {values: []string{`nodeSelector={"a":"b"}`, `tolerations=[{"key":"c"}]`, `affinity={"nodeAffinity":{}}`, `priorityClassName="high"`}, want: []string{"nodeSelector:\n        a: b", "tolerations:\n        - key: c", "affinity:\n        nodeAffinity: {}", "priorityClassName: high"}},
		"Pods' metadata":     {values: []string{`podLabels={"team":"edge"}`, `podAnnotations={"contact":"ops"}`, `imagePullSecrets=[{"name":"p"}]`}, want: []string{"team: edge", "contact: ops", "- name: p"}},
		"log and admin":      {values: []string{`log={"level":"debug","format":"text"}`, "adminPort=9000"}, want: []string{"--log-level=debug", "--log-format=text", "--admin=:9000", "containerPort: 9000"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := template(test.values...)
			if err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is missing in\n%s", want, got)
				}
			}
			for _, absent := range test.absent {
				if strings.Contains(got, absent) {
					t.Errorf("%q is in\n%s", absent, got)
				}
			}
			decode[appsv1.Deployment](t, documents(t, got), "Deployment", "gatehouse-controller")
		})
	}
	for name, value := range map[string]string{
		"an unknown value":    "replica=1",
		"a negative number":   "replicas=-1",
		"a level that is not": `log.level="loud"`,
		"a name, not a path":  `controllerName="gatehouse"`,
		"no image":            `image.repository=""`,
	} {
		if got, err := template(value); err == nil {
			t.Errorf("%s is taken: %s\n%s", name, value, got)
		}
	}
}

// TestRights: no wildcard, nothing that makes rights, and nothing of Gateway API that can be written but statuses.
func TestRights(t *testing.T) {
	list := documents(t, read(t, "deploy/install.yaml"))
	role := decode[rbacv1.ClusterRole](t, list, "ClusterRole", "gatehouse-controller-gatehouse-system")
	own := decode[rbacv1.Role](t, list, "Role", "gatehouse-controller")
	for _, r := range slices.Concat(role.Rules, own.Rules) {
		for _, word := range slices.Concat(r.APIGroups, r.Resources, r.Verbs) {
			if slices.Contains([]string{"*", "rbac.authorization.k8s.io", "escalate", "bind", "impersonate", "deletecollection", "pods/exec",
				"serviceaccounts/token"}, word) {
				t.Errorf("rule %v has %q", r, word)
			}
		}
	}
	for _, r := range role.Rules {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				isRead := slices.Contains([]string{"get", "list", "watch"}, verb)
				switch {
				case strings.HasSuffix(resource, "/status"):
					if verb != "patch" {
						t.Errorf("%s %s: a status is patched and nothing else", verb, resource)
					}
				case slices.Contains([]string{"serviceaccounts", "configmaps", "services", "deployments", "poddisruptionbudgets", "tokenreviews"}, resource):
				case !isRead:
					t.Errorf("%s %s: only what Gateways are made of is written", verb, resource)
				}
			}
		}
	}
	for _, d := range list {
		if d.Kind != "ClusterRole" && d.Kind != "Role" {
			continue
		}
		lines := strings.Split(d.text, "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "- apiGroups:") && !strings.HasPrefix(lines[i-1], "# ") {
				t.Errorf("%s: no comment says what this rule is for: %s, %s", d.Kind, line, lines[i+1])
			}
		}
	}
}
