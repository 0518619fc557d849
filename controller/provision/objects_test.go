package provision

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metavalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

var update = flag.Bool("update", false, "rewrite the .golden files")

func testSettings() *settings {
	return &settings{
		controller: "gatehouse.dev/controller", image: "gatehouse-proxy:test", address: "gatehouse-controller.gatehouse-system.svc:18000",
		serverName: "gatehouse-controller.gatehouse-system.svc", ca: []byte("-----BEGIN CERTIFICATE-----\n"),
	}
}

// TestGolden makes the objects of testdata/NAME.yaml, which is a plan.Gateway, and compares them with testdata/NAME.golden.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) < 10 {
		t.Fatalf("found %d cases, %v; want 10 or more", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".yaml"), func(t *testing.T) {
			g := readGateway(t, input)
			got := written(t, g)
			if again := written(t, g); again != got {
				t.Errorf("a second time gives other objects:\n%s", cmp.Diff(got, again))
			}
			if !reflect.DeepEqual(g, readGateway(t, input)) {
				t.Error("the Gateway was changed")
			}
			golden := strings.TrimSuffix(input, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("run with -update to accept:\n%s", diff)
			}
		})
	}
}

func readGateway(t *testing.T, file string) *plan.Gateway {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g := &plan.Gateway{}
	if err := yaml.UnmarshalStrict(text, g); err != nil {
		t.Fatal(err)
	}
	return g
}

func written(t *testing.T, g *plan.Gateway) string {
	t.Helper()
	list, err := objects(g, testSettings())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, w := range list {
		text, err := yaml.Marshal(w.config)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "---\n%s", text)
	}
	return out.String()
}

func TestObjectName(t *testing.T) {
	fits, long := strings.Repeat("a", 53), strings.Repeat("a", 54)
	tests := map[string]struct {
		gateway string
		want    string // "" for a made one
	}{
		"plain":                      {"web", "gatehouse-web"},
		"a digit first":              {"1web", "gatehouse-1web"},
		"dashes":                     {"a-b-c", "gatehouse-a-b-c"},
		"as long as it may be":       {fits, "gatehouse-" + fits},
		"one too long":               {long, ""},
		"a dot":                      {"a.b", ""},
		"looks like a made one":      {"a-x0123456789", ""},
		"too short for a made one":   {"a-x012345678", "gatehouse-a-x012345678"},
		"ten letters that are words": {"public-production", "gatehouse-public-production"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := objectName(test.gateway)
			if test.want != "" && got != test.want || test.want == "" && !looksCut(got) {
				t.Errorf("objectName(%q) = %q, want %q", test.gateway, got, test.want)
			}
		})
	}
}

// TestNamesDoNotMeet makes names out of which others could be guessed and looks for two Gateways of one namespace that get one name.
func TestNamesDoNotMeet(t *testing.T) {
	long := strings.Repeat("a", 52)
	names := []string{"a.b", "a-b", "a.b.c", "a-b.c", "a.b-c", "a-b-c", long, long + "a", long + "b", long + ".a", long + "-a", long + ".b",
		strings.Repeat("a", 253), strings.Repeat("a", 252) + "b"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		name := make([]byte, 1+r.IntN(253))
		for i := range name {
			name[i] = "ab1-."[r.IntN(5)]
		}
		if legal := string(name); len(metavalidation.NameIsDNSSubdomain(legal, false)) == 0 {
			names = append(names, legal)
		}
	}
	// Names that somebody chose because another's is made so, twice over.
	for range 2 {
		for _, name := range names[:len(names):len(names)] {
			names = append(names, strings.TrimPrefix(objectName(name), namePrefix), objectName(name))
		}
	}
	by := map[string]string{}
	for _, name := range names {
		made := objectName(name)
		if problems := validation.IsDNS1035Label(made); len(problems) > 0 {
			t.Fatalf("objectName(%q) = %q: %v", name, made, problems)
		}
		if problems := validation.IsValidLabelValue(labelValue(name)); len(problems) > 0 {
			t.Fatalf("labelValue(%q) = %q: %v", name, labelValue(name), problems)
		}
		if other, ok := by[made]; ok && other != name {
			t.Fatalf("%q and %q both get the name %q", name, other, made)
		}
		by[made] = name
	}
}

// TestSelectorsDoNotMeet: the Pods of one Gateway are never another's, also where the labels of Gateway API are the same.
func TestSelectorsDoNotMeet(t *testing.T) {
	long := strings.Repeat("a", 64)
	a := &plan.Gateway{Origin: config.Origin{Kind: "Gateway", Namespace: "shop", Name: long}, Class: "gatehouse"}
	b := &plan.Gateway{Origin: config.Origin{Kind: "Gateway", Namespace: "shop", Name: labelValue(long)}, Class: "gatehouse"}
	s := testSettings()
	if labels(a, s)[nameLabel] != labels(b, s)[nameLabel] {
		t.Fatal("the case is none: the labels of Gateway API differ")
	}
	for key, value := range selector(a) {
		if labels(b, s)[key] == value {
			t.Errorf("Pods of %s are selected by %s=%s of %s", b.Key(), key, value, a.Key())
		}
	}
}

func TestManagedBy(t *testing.T) {
	tests := map[string]struct{ controller, want string }{
		"the default":     {"gatehouse.dev/controller", "gatehouse.dev_controller"},
		"another":         {"example.com/edge", "example.com_edge"},
		"a path":          {"example.com/edge/1", ""},
		"too long":        {"example.com/" + strings.Repeat("a", 63), ""},
		"ends in a point": {"example.com/edge.", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := managedBy(test.controller)
			if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
				t.Fatalf("managedBy(%q) = %q: %v", test.controller, got, problems)
			}
			if test.want != "" && got != test.want || test.want == "" && !looksCut(got) {
				t.Errorf("managedBy(%q) = %q, want %q", test.controller, got, test.want)
			}
		})
	}
}

// TestEveryObjectIsLabelled: what has no label is never found again, what has no owner never ends.
func TestEveryObjectIsLabelled(t *testing.T) {
	replicas := int32(2)
	g := &plan.Gateway{
		Origin: config.Origin{Kind: "Gateway", Namespace: "shop", Name: "web"}, UID: "u-1", Class: "gatehouse",
		Ports: []plan.Port{{Number: 80, Protocol: "TCP", Name: "tcp-80"}},
	}
	g.Parameters.Replicas = &replicas
	list, err := objects(g, testSettings())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 5 {
		t.Fatalf("%d objects, want 5", len(list))
	}
	for _, w := range list {
		var o struct {
			Kind     string
			Metadata struct {
				Name, Namespace string
				Labels          map[string]string
				OwnerReferences []struct {
					UID, Kind  string
					Controller bool
				}
			}
		}
		text, err := yaml.Marshal(w.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &o); err != nil {
			t.Fatal(err)
		}
		m := o.Metadata
		if o.Kind != string(w.kind) || m.Name != w.name || m.Namespace != "shop" {
			t.Errorf("%s %s is a %s %s/%s", w.kind, w.name, o.Kind, m.Namespace, m.Name)
		}
		if m.Labels[managedByLabel] != "gatehouse.dev_controller" || m.Labels[nameLabel] != "web" || m.Labels[classLabel] != "gatehouse" {
			t.Errorf("%s has labels %v", w.kind, m.Labels)
		}
		if len(m.OwnerReferences) != 1 || m.OwnerReferences[0].UID != "u-1" || !m.OwnerReferences[0].Controller {
			t.Errorf("%s has owners %v", w.kind, m.OwnerReferences)
		}
	}
}

// TestAnnotationsLeftOut: those of a Gateway that would undo what its objects are made to be.
func TestAnnotationsLeftOut(t *testing.T) {
	g := plan.Gateway{Annotations: map[string]string{
		"deployment.kubernetes.io/revision": "1", "container.apparmor.security.beta.kubernetes.io/proxy": "unconfined", "example.com/team": "shop",
	}}
	got := annotations(&g)
	if len(got) != 1 || got["example.com/team"] != "shop" {
		t.Errorf("got %v", got)
	}
	if len(g.Annotations) != 3 {
		t.Error("the Gateway's own were changed")
	}
}
