package source

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source/devcert"
	"gatehouse.dev/gatehouse/controller/source/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// validator makes the schemas that the cases of one test share.
func validator(t testing.TB) Option {
	t.Helper()
	return WithValidator(schema.New())
}

func load(t testing.TB, f *Folder) *State {
	t.Helper()
	s, err := f.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {v: %q}\n", name, value)
}

// TestCases reads testdata/cases/NAME.yaml or .json; NAME.objects is what comes out of it, NAME.problems what is wrong with it.
func TestCases(t *testing.T) {
	option := validator(t)
	inputs, err := filepath.Glob("testdata/cases/*.[yj][as]*")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(input, filepath.Ext(input))
		t.Run(filepath.Base(name), func(t *testing.T) {
			s := load(t, NewFolder([]string{input}, option))
			var problems strings.Builder
			for _, p := range s.Problems {
				p.File = filepath.Base(p.File)
				fmt.Fprintf(&problems, "%s [%s]\n", p.Error(), p.SetAside)
			}
			golden(t, name+".objects", objects(t, s))
			golden(t, name+".problems", problems.String())
		})
	}
}

// objects prints every object with its place, in order.
func objects(t *testing.T, s *State) string {
	var out []string
	for ref, at := range s.Where {
		raw, err := json.Marshal(object(s, ref))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s/%s/%s line %d\n  %s\n", ref.Kind, ref.Namespace, ref.Name, at.Line, raw))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func object(s *State, ref Ref) any {
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	return map[string]any{
		"GatewayClass": s.GatewayClasses[name], "Gateway": s.Gateways[name], "HTTPRoute": s.HTTPRoutes[name],
		"ReferenceGrant": s.ReferenceGrants[name], "XBackend": s.XBackends[name], "Service": s.Services[name],
		"EndpointSlice": s.EndpointSlices[name], "Secret": s.Secrets[name], "ConfigMap": s.ConfigMaps[name], "Namespace": s.Namespaces[name],
	}[ref.Kind]
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		write(t, path, got)
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run with -update to rewrite:\n%s", path, diff)
	}
}

// TestSecretsStayOut checks that no message repeats what a Secret holds.
func TestSecretsStayOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	for _, data := range []string{`data: {k: "hunter2!"}`, `data: {k: 4711}`, `stringData: {k: 4711}`, `stringData: {"bad key": hunter2!}`,
		`type: kubernetes.io/tls` + "\n" + `stringData: {tls.crt: hunter2!}`, `data: {k: [hunter2!]}`, `data: hunter2!`} {
		write(t, file, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"+data+"\n")
		s := load(t, NewFolder([]string{file}))
		if len(s.Problems) == 0 {
			t.Errorf("%s: no problem", data)
		}
		for _, p := range s.Problems {
			if strings.Contains(p.Error(), "hunter2") || strings.Contains(p.Error(), "4711") {
				t.Errorf("%s: %s", data, p.Error())
			}
		}
	}
}

// TestFiles says which files of a tree are read.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "b.yml", "c.json", "d.txt", ".hidden.yaml", ".git/x.yaml", "sub/e.yaml", "sub/deep/f.YAML"} {
		text := configMap(strings.NewReplacer("/", "-", ".", "-").Replace(strings.ToLower(name)), "")
		if strings.HasSuffix(name, ".json") {
			text = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c-json"}}`
		}
		write(t, filepath.Join(dir, name), text)
	}
	link(t, "sub", filepath.Join(dir, "alias"))         // reached twice
	link(t, "..", filepath.Join(dir, "sub", "loop"))    // a circle
	link(t, "nowhere", filepath.Join(dir, "gone.yaml")) // leads nowhere
	write(t, filepath.Join(dir, "..v1", "m.yaml"), configMap("mounted", ""))
	link(t, "..v1", filepath.Join(dir, "..data"))
	link(t, "..data/m.yaml", filepath.Join(dir, "m.yaml"))

	s := load(t, NewFolder([]string{dir, filepath.Join(dir, "a.yaml"), filepath.Join(dir, "missing")}, validator(t)))
	var got []string
	for ref := range s.Where {
		got = append(got, ref.Name)
	}
	slices.Sort(got)
	if diff := gocmp.Diff([]string{"a-yaml", "b-yml", "c-json", "mounted", "sub-deep-f-yaml", "sub-e-yaml"}, got); diff != "" {
		t.Error(diff)
	}
	var wrong []string
	for _, p := range s.Problems {
		wrong = append(wrong, filepath.Base(p.File)+" "+string(p.Reason))
	}
	if diff := gocmp.Diff([]string{"gone.yaml Unreadable", "missing Unreadable"}, wrong); diff != "" {
		t.Error(diff)
	}
}

func link(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// values prints the ConfigMaps' values, and the reasons of problems.
func values(s *State) string {
	var out []string
	for name, c := range s.ConfigMaps {
		out = append(out, name.Name+"="+c.Data["v"])
	}
	slices.Sort(out)
	for _, p := range s.Problems {
		out = append(out, string(p.Reason)+":"+p.Name+fmt.Sprint(p.Line))
	}
	return strings.Join(out, " ")
}

// TestLastGood edits a file step by step. Each step is the file's text, "" to empty it, or "delete".
func TestLastGood(t *testing.T) {
	two := configMap("a", "1") + "---\n" + configMap("b", "1")
	tests := map[string]struct{ steps, want []string }{
		"invalid object keeps": {
			[]string{two, configMap("a", "2") + "---\n" + configMap("b", "2") + "datum: {}\n", two},
			[]string{"a=1 b=1", "a=2 b=1 SchemaInvalid:b10", "a=1 b=1"},
		},
		"invalid from the start": {
			[]string{configMap("a", "1") + "datum: {}\n"},
			[]string{"SchemaInvalid:a5"},
		},
		"unparsable document keeps all of the file": {
			[]string{two, configMap("c", "1") + "---\na: [\n"},
			[]string{"a=1 b=1", "a=1 b=1 c=1 Unparsable:6"},
		},
		"duplicate key keeps that object": {
			[]string{two, configMap("a", "2") + "kind: ConfigMap\n"},
			[]string{"a=1 b=1", "a=1 Unparsable:a5"},
		},
		"truncated to a nameless object": {
			[]string{two, "apiVersion: v1\nkind: ConfigMap\n"},
			[]string{"a=1 b=1", "a=1 b=1 SchemaInvalid:1"},
		},
		"emptied, then written": {
			[]string{two, "", configMap("a", "3")},
			[]string{"a=1 b=1", "a=1 b=1 Unparsable:1", "a=3"},
		},
		"empty from the start": {[]string{""}, []string{""}},
		"commented out":        {[]string{two, "# nothing\n"}, []string{"a=1 b=1", ""}},
		"document removed":     {[]string{two, configMap("b", "1")}, []string{"a=1 b=1", "b=1"}},
		"deleted":              {[]string{two, "delete", two}, []string{"a=1 b=1", "", "a=1 b=1"}},
		"wrong version keeps": {
			[]string{two, strings.Replace(two, "v1", "v2", 1)},
			[]string{"a=1 b=1", "a=1 b=1 UnknownKind:a2"},
		},
		"another API's object of that name": {
			[]string{two, strings.Replace(two, "v1", "example.com/v1", 1)},
			[]string{"a=1 b=1", "b=1 UnknownKind:a2"},
		},
		"not utf-8":       {[]string{two, "a: \xff\n"}, []string{"a=1 b=1", "a=1 b=1 Unparsable:1"}},
		"second one wins": {[]string{two + "---\n" + configMap("a", "2")}, []string{"a=1 b=1 Duplicate:a11"}},
	}
	option := validator(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f.yaml")
			f := NewFolder([]string{dir}, option)
			for i, step := range test.steps {
				if step == "delete" {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				} else {
					write(t, path, step)
				}
				if got := values(load(t, f)); got != test.want[i] {
					t.Errorf("step %d: %q, want %q", i, got, test.want[i])
				}
			}
		})
	}
}

// TestIdentity holds the promise that unchanged objects keep their pointer, and unchanged kinds their revision.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.yaml")
	f := NewFolder([]string{dir}, validator(t))
	service := "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
	write(t, path, configMap("a", "1")+"---\n"+configMap("b", "1")+"---\n"+service)
	first := load(t, f)
	if again := load(t, f); again != first {
		t.Error("a second load without a change made another State")
	}
	write(t, path, "# moved\n"+configMap("a", "2")+"---\n# said\n"+configMap("b", "1")+"---\n"+service)
	second := load(t, f)
	a, b := types.NamespacedName{Namespace: "default", Name: "a"}, types.NamespacedName{Namespace: "default", Name: "b"}
	if first.ConfigMaps[a] == second.ConfigMaps[a] {
		t.Error("the changed object has the same pointer")
	}
	if first.ConfigMaps[b] != second.ConfigMaps[b] {
		t.Error("an object that only got a comment has another pointer")
	}
	if diff := gocmp.Diff(map[string]uint64{"ConfigMap": 2, "Service": 1}, second.Revisions); diff != "" {
		t.Error(diff)
	}
	at := second.Where[Ref{"Service", "default", "s"}]
	if at.Line != 13 || at.Fields("spec.ports[0].port") != 16 || at.Fields("metadata") != 15 {
		t.Errorf("the service stands on line %d, its port on %d", at.Line, at.Fields("spec.ports[0].port"))
	}
	p := second.Problem(problem.Problem{Kind: "Service", Namespace: "default", Name: "s", Field: "spec.ports[0]"})
	if p.File != path || p.Line != 16 {
		t.Errorf("problem at %s:%d", p.File, p.Line)
	}
}

func TestDevelopmentCertificate(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "f.yaml"), `
apiVersion: v1
kind: Secret
metadata: {name: tls, annotations: {gatehouse.dev/development-certificate: "bookinfo.example.com, localhost,127.0.0.1"}}
type: kubernetes.io/tls
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca, annotations: {gatehouse.dev/development-ca: "true"}}
---
apiVersion: v1
kind: Secret
metadata:
  name: bad
  annotations:
    gatehouse.dev/development-certificate: "a b"
type: kubernetes.io/tls
`)
	authority, err := devcert.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	f := NewFolder([]string{dir}, validator(t), WithIssuer(authority))
	s := load(t, f)
	secret := s.Secrets[types.NamespacedName{Namespace: "default", Name: "tls"}]
	if secret == nil || len(secret.Data["tls.crt"]) == 0 || len(secret.Data["tls.key"]) == 0 {
		t.Fatalf("the secret was not filled in: %v", s.Problems)
	}
	ca, err := os.ReadFile(authority.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.ConfigMaps[types.NamespacedName{Namespace: "default", Name: "ca"}].Data["ca.crt"]; got != string(ca) {
		t.Error("the config map does not hold the authority")
	}
	if len(s.Problems) != 1 || s.Problems[0].Line != 16 {
		t.Errorf("problems %v, want one on line 16", s.Problems)
	}
	if load(t, f) != s {
		t.Error("filling in again made another State")
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewFolder([]string{"testdata"}).Load(ctx); err == nil {
		t.Error("no error")
	}
}

// routes is n HTTPRoutes in one file's text.
func routes(n, edited int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: route-%d
spec:
  parentRefs:
  - name: edge
  hostnames:
  - host-%d.example.com
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: /v%d
    backendRefs:
    - name: service-%d
      port: 8080
---
`, i, i, cmp.Or(map[bool]int{true: edited}[i == n/2], 1), i)
	}
	return b.String()
}

func BenchmarkLoad5000Routes(b *testing.B) {
	path := filepath.Join(b.TempDir(), "routes.yaml")
	write(b, path, routes(5000, 1))
	option := validator(b)
	for b.Loop() {
		if s := load(b, NewFolder([]string{path}, option)); len(s.HTTPRoutes) != 5000 {
			b.Fatal(s.Problems)
		}
	}
}

func BenchmarkOneOf5000Changed(b *testing.B) {
	path := filepath.Join(b.TempDir(), "routes.yaml")
	write(b, path, routes(5000, 1))
	f := NewFolder([]string{path}, validator(b))
	load(b, f)
	for i := 2; b.Loop(); i++ {
		b.StopTimer()
		write(b, path, routes(5000, i))
		b.StartTimer()
		if s := load(b, f); s.Revisions["HTTPRoute"] != uint64(i) {
			b.Fatal("the change was not seen")
		}
	}
}
