package schema

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "copy the definitions from the gateway-api module and from deploy/crds")

func moduleDir(t *testing.T) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "experimental")
}

// TestEmbeddedDefinitions holds the copies against the module's files, and the table against the copies.
func TestEmbeddedDefinitions(t *testing.T) {
	dir := moduleDir(t)
	shipped, err := filepath.Glob(filepath.Join(dir, "*_*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("../../../deploy/crds/" + ownGroup + "_*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shipped = append(shipped, own...)
	known := map[string]*definition{}
	for _, d := range definitions() {
		known[d.file] = d
	}
	for _, path := range shipped {
		name := filepath.Base(path)
		if strings.Contains(name, "_vap_") {
			continue
		}
		d := known[name]
		if d == nil {
			t.Errorf("there is %s, which is not in the table of definitions", name)
			continue
		}
		delete(known, name)
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(filepath.Join("crds", name), want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := crds.ReadFile("crds/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("crds/%s differs from the module's file or that of deploy/crds; run go generate ./controller/source/schema", name)
		}
		checkTable(t, d)
	}
	for name := range known {
		t.Errorf("%s is in the table, and neither the module nor deploy/crds has it", name)
	}
}

func checkTable(t *testing.T, d *definition) {
	crd, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, v := range crd.Spec.Versions {
		if v.Served {
			served[v.Name] = true
		}
	}
	got := fmt.Sprintf("%s %s cluster=%t %d", crd.Spec.Group, crd.Spec.Names.Kind, crd.Spec.Scope == "Cluster", len(served))
	want := fmt.Sprintf("%s %s cluster=%t %d", d.group, d.kind, d.clusterScoped, len(d.servedVersions))
	if got != want {
		t.Errorf("%s: the file says %q, the table %q", d.file, got, want)
	}
	for _, v := range d.servedVersions {
		if !served[v] {
			t.Errorf("%s: version %s is not served", d.file, v)
		}
	}
	if s := crd.Spec.Conversion; s != nil && s.Strategy != "None" {
		t.Errorf("%s: versions are converted by %s; one Go type no longer decodes them all", d.file, s.Strategy)
	}
}

func toJSON(t testing.TB, text string) []byte {
	raw, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const benchRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: bookinfo, labels: {app: reviews}}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [reviews.example.com]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /reviews}
      headers: [{name: x-user, value: jason}]
    backendRefs: [{name: reviews-v2, port: 9080, weight: 1}, {name: reviews-v3, port: 9080, weight: 9}]
  - matches: [{path: {type: PathPrefix, value: /}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-a, value: b}]}
    backendRefs: [{name: reviews-v1, port: 9080}]
`

func BenchmarkHTTPRoute(b *testing.B) {
	v := New()
	raw := toJSON(b, benchRoute)
	h := ParseHeader(raw)
	if _, errs := v.Validate(b.Context(), h, raw); len(errs) > 0 {
		b.Fatal(errs)
	}
	b.ReportAllocs()
	for b.Loop() {
		if o, _ := v.Validate(b.Context(), h, raw); o.(*gatewayv1.HTTPRoute).Name == "" {
			b.Fatal("no name")
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	raw := toJSON(b, benchRoute)
	for b.Loop() {
		if _, errs := New().Validate(b.Context(), ParseHeader(raw), raw); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}
