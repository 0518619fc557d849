package status

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/yaml"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// objectOf decodes an object by its kind.
func objectOf(t *testing.T, raw json.RawMessage) metav1.Object {
	t.Helper()
	var kind metav1.TypeMeta
	if err := json.Unmarshal(raw, &kind); err != nil {
		t.Fatal(err)
	}
	o, ok := map[string]metav1.Object{
		"GatewayClass": &gatewayv1.GatewayClass{}, "Gateway": &gatewayv1.Gateway{}, "ListenerSet": &gatewayv1.ListenerSet{},
		"HTTPRoute": &gatewayv1.HTTPRoute{}, "TCPRoute": &gatewayv1.TCPRoute{}, "BackendTLSPolicy": &gatewayv1.BackendTLSPolicy{},
		"XBackend": &gatewayxv1alpha1.XBackend{},
	}[kind.Kind]
	if !ok {
		t.Fatalf("kind %s", kind.Kind)
	}
	if err := json.Unmarshal(raw, o); err != nil {
		t.Fatal(err)
	}
	return o
}

func testView(s Serving) *view {
	return &view{
		controller: "gatehouse.dev/controller", features: []string{"Gateway", "HTTPRoute"},
		serving: func(string) Serving { return s }, now: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
}

// Each case is a .yaml with an object, its outcomes and what is known of the proxies; the .json beside it is the patch of its status. What
// the patch makes of the object needs no other patch.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Object   json.RawMessage
				Outcomes []plan.Outcome
				Serving  Serving
			}
			if err := yaml.UnmarshalStrict(text, &c); err != nil {
				t.Fatal(err)
			}
			v := testView(c.Serving)
			f := v.desired(objectOf(t, c.Object), c.Outcomes)
			got, err := json.MarshalIndent(f, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := strings.TrimSuffix(file, ".yaml") + ".json"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if again := v.desired(patched(t, c.Object, f), c.Outcomes); len(again) > 0 {
				t.Errorf("after the patch another one: %v", again)
			}
		})
	}
}

// patched returns the object with the fields in its status.
func patched(t *testing.T, raw json.RawMessage, f fields) metav1.Object {
	t.Helper()
	tree := map[string]any{}
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	status, _ := tree["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	for k, v := range f {
		status[k] = v
	}
	tree["status"] = status
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return objectOf(t, out)
}

func TestGatewayProgrammed(t *testing.T) {
	ip := []plan.Address{{Type: "IPAddress", Value: "192.0.2.1"}}
	was := func(status metav1.ConditionStatus, generation int64) []metav1.Condition {
		return []metav1.Condition{{Type: "Programmed", Status: status, ObservedGeneration: generation}}
	}
	cases := map[string]struct {
		serving Serving
		silent  bool // no listener serves
		was     []metav1.Condition
		want    string
	}{
		"acknowledged":          {serving: Serving{Ready: 2, Acknowledged: 2, Addresses: ip}, want: "Programmed"},
		"no listener":           {serving: Serving{Ready: 2, Acknowledged: 2, Addresses: ip}, silent: true, want: "Invalid"},
		"bound nowhere":         {serving: Serving{Ready: 1, Acknowledged: 1, Addresses: ip, Listeners: map[string]string{"n/g/http": "p: taken"}}, want: "Invalid"},
		"another bound nowhere": {serving: Serving{Ready: 1, Acknowledged: 1, Addresses: ip, Listeners: map[string]string{"n/g/x": "p: taken"}}, want: "Programmed"},
		"no address":            {serving: Serving{Ready: 2, Acknowledged: 2}, want: "AddressNotAssigned"},
		"another address":       {serving: Serving{Ready: 2, Acknowledged: 2, Addresses: ip, Requested: []plan.Address{{Value: "192.0.2.9"}}}, want: "AddressNotUsable"},
		"that address":          {serving: Serving{Ready: 2, Acknowledged: 2, Addresses: ip, Requested: ip}, want: "Programmed"},
		"that address, written so": {serving: Serving{Ready: 1, Acknowledged: 1, Addresses: []plan.Address{{Value: "2001:db8::1"}},
			Requested: []plan.Address{{Value: "2001:DB8:0::1"}}}, want: "Programmed"},
		"any address":                      {serving: Serving{Ready: 2, Acknowledged: 2, Addresses: ip, Requested: []plan.Address{{Type: "IPAddress"}}}, want: "Programmed"},
		"not provisioned":                  {serving: Serving{Problem: "quota"}, want: "NoResources"},
		"none ready":                       {serving: Serving{Acknowledged: 1, Addresses: ip}, want: "Pending"},
		"one of two":                       {serving: Serving{Ready: 2, Acknowledged: 1, Addresses: ip}, want: "Pending"},
		"one behind":                       {serving: Serving{Ready: 1, Acknowledged: 1, Behind: 1, Addresses: ip}, want: "Pending"},
		"refused":                          {serving: Serving{Ready: 1, Refused: []string{"p: no"}, Addresses: ip}, want: "Invalid"},
		"away, programmed before":          {serving: Serving{Ready: 1, Away: true, Addresses: ip}, was: was(metav1.ConditionTrue, 1), want: "Programmed"},
		"away, not programmed before":      {serving: Serving{Ready: 1, Away: true, Addresses: ip}, was: was(metav1.ConditionFalse, 1), want: "Pending"},
		"away, another generation before":  {serving: Serving{Ready: 1, Away: true, Addresses: ip}, was: was(metav1.ConditionTrue, 0), want: "Pending"},
		"away for long, programmed before": {serving: Serving{Ready: 1, Addresses: ip}, was: was(metav1.ConditionTrue, 1), want: "Pending"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			own := &plan.Outcome{Conditions: []plan.Condition{{Type: "Accepted", Status: true, Reason: "Accepted"}}}
			own.Object.Namespace, own.Object.Name, own.Object.Generation = "n", "g", 1
			got := gatewayProgrammed(own, []*plan.Outcome{{Object: config.Origin{Rule: "http"}, Serves: !c.silent}}, &c.serving, c.was)
			if got.Reason != c.want || got.Status != (c.want == "Programmed") {
				t.Errorf("got %+v, want %s", got, c.want)
			}
		})
	}
}
