package gatewayapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/controller/source/schema"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/cors"
	"gatehouse.dev/gatehouse/filters/headers"
	"gatehouse.dev/gatehouse/filters/mirror"
	"gatehouse.dev/gatehouse/filters/redirect"
	"gatehouse.dev/gatehouse/filters/rewrite"
)

var update = flag.Bool("update", false, "rewrite the .golden files")

// notStandalone in the first lines of a case translates it as in a cluster.
const notStandalone = "# standalone: false\n"

// TestGolden translates testdata/NAME.yaml and compares the Plan with testdata/NAME.golden. The objects pass the schemas of the API, so
// that every case is one that a cluster would hold.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) < 40 {
		t.Fatalf("found %d cases, %v; want 40 or more", len(inputs), err)
	}
	validator := schema.New()
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			st := load(t, validator, input)
			before := contents(t, st)
			tr := New(Options{Filters: testFilters(t), Standalone: !bytes.Contains(text, []byte(notStandalone))})
			got := tr.Translate(st)
			compareGolden(t, strings.TrimSuffix(input, ".yaml")+".golden", got)
			checkSamePlan(t, got, tr.Translate(st))
			if diff := cmp.Diff(before, contents(t, st)); diff != "" {
				t.Errorf("the translation changed its input:\n%s", diff)
			}
		})
	}
}

// contents writes out the objects of a State.
func contents(t *testing.T, st *source.State) map[string]string {
	t.Helper()
	out := make(map[string]string)
	write := func(kind string, key types.NamespacedName, obj any) { out[kind+"/"+key.String()] = jsonOf(t, obj) }
	for key, obj := range st.GatewayClasses {
		write("GatewayClass", key, obj)
	}
	for key, obj := range st.Gateways {
		write("Gateway", key, obj)
	}
	for key, obj := range st.HTTPRoutes {
		write("HTTPRoute", key, obj)
	}
	for key, obj := range st.Services {
		write("Service", key, obj)
	}
	for key, obj := range st.EndpointSlices {
		write("EndpointSlice", key, obj)
	}
	for key, obj := range st.XBackends {
		write("XBackend", key, obj)
	}
	for key, obj := range st.Namespaces {
		write("Namespace", key, obj)
	}
	return out
}

func compareGolden(t *testing.T, file string, got *plan.Plan) {
	t.Helper()
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		t.Error("the plan shows a private key")
	}
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run go test -update and review what it writes", err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

// checkSamePlan checks that translating the same State again gives the same pointers.
func checkSamePlan(t *testing.T, first, second *plan.Plan) {
	t.Helper()
	if diff := cmp.Diff(jsonOf(t, first), jsonOf(t, second)); diff != "" {
		t.Errorf("the second translation differs:\n%s", diff)
	}
	for i := range first.Config.Listeners {
		if first.Config.Listeners[i] != second.Config.Listeners[i] {
			t.Errorf("listener %s is another pointer", first.Config.Listeners[i].Name)
		}
	}
	for i := range first.Config.Clusters {
		if first.Config.Clusters[i] != second.Config.Clusters[i] {
			t.Errorf("cluster %s is another pointer", first.Config.Clusters[i].Name)
		}
	}
	for i := range first.Config.Certificates {
		if first.Config.Certificates[i] != second.Config.Certificates[i] {
			t.Errorf("certificate %s is another pointer", first.Config.Certificates[i].Name)
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// load reads a file as standalone mode does. The input of a translation test must be good.
func load(t *testing.T, v *schema.Validator, file string) *source.State {
	t.Helper()
	st, err := source.NewFolder([]string{file}, source.WithValidator(v)).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Problems {
		t.Errorf("the input is not good: %v", p)
	}
	return st
}

// testFilters are the filters that cmd lists.
func testFilters(t testing.TB) *filters.Set {
	t.Helper()
	set, err := filters.NewSet(headers.RequestSpec(), headers.ResponseSpec(), redirect.Spec(), rewrite.Spec(), mirror.Spec(), cors.Spec(), extauthz.Spec())
	if err != nil {
		t.Fatal(err)
	}
	return set
}
