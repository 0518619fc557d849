package filters_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// traceConfig is the config of a filter that writes down when it ran.
type traceConfig struct {
	Name  string `json:"name"`
	Reply bool   `json:"reply,omitempty"`
	Fail  bool   `json:"fail,omitempty"`
	Bad   bool   `json:"bad,omitempty"`
}

var errTrace = errors.New("failed as asked")

type traceFilter struct {
	traceConfig
	log *[]string
}

func (f traceFilter) OnRequest(context.Context, *exchange.Exchange) (filters.Action, error) {
	*f.log = append(*f.log, "+"+f.Name)
	switch {
	case f.Fail:
		return filters.Continue, errTrace
	case f.Reply:
		return filters.Reply, nil
	}
	return filters.Continue, nil
}

func (f traceFilter) OnResponse(*exchange.Exchange) { *f.log = append(*f.log, "-"+f.Name) }

func traceSpec(kind string, phase filters.Phase, log *[]string) filters.Spec {
	open := func(payload []byte) (traceConfig, error) {
		c, err := filters.Decode[traceConfig](payload)
		if err == nil && c.Bad {
			err = errTrace
		}
		return c, err
	}
	return filters.Spec{
		Kind:  kind,
		Phase: phase,
		Validate: func(payload []byte) error {
			_, err := open(payload)
			return err
		},
		Build: func(payload []byte, _ *filters.Builder) (filters.Filter, error) {
			c, err := open(payload)
			return traceFilter{c, log}, err
		},
	}
}

func item(kind string, c traceConfig) filters.Item {
	return filters.Item{Kind: kind, Payload: filters.Encode(c)}
}

func TestChain(t *testing.T) {
	tests := map[string]struct {
		items   []filters.Item
		action  filters.Action
		wantErr bool
		want    string // +name on the request side, -name on the response side
	}{
		"none": {want: ""},
		"by phase, whatever the order in the object": {
			items: []filters.Item{
				item("mirror", traceConfig{Name: "m"}), item("rewrite", traceConfig{Name: "w"}), item("headers", traceConfig{Name: "h"}), item("cors", traceConfig{Name: "c"}),
			},
			want: "+c +h +w +m -m -w -h -c",
		},
		"as listed within a phase": {
			items: []filters.Item{
				item("headers", traceConfig{Name: "2"}), item("mirror", traceConfig{Name: "m1"}), item("headers", traceConfig{Name: "1"}), item("also-headers", traceConfig{Name: "0"}), item("mirror", traceConfig{Name: "m0"}),
			},
			want: "+2 +1 +0 +m1 +m0 -m0 -m1 -0 -1 -2",
		},
		"a reply stops the request side": {
			items:  []filters.Item{item("mirror", traceConfig{Name: "m"}), item("rewrite", traceConfig{Name: "w", Reply: true}), item("cors", traceConfig{Name: "c"})},
			action: filters.Reply,
			want:   "+c +w -w -c",
		},
		"a reply of the first": {
			items:  []filters.Item{item("cors", traceConfig{Name: "c", Reply: true}), item("headers", traceConfig{Name: "h"})},
			action: filters.Reply,
			want:   "+c -c",
		},
		"an error stops too": {
			items:   []filters.Item{item("headers", traceConfig{Name: "h", Fail: true}), item("cors", traceConfig{Name: "c"}), item("mirror", traceConfig{Name: "m"})},
			wantErr: true,
			want:    "+c +h -h -c",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var log []string
			set, err := filters.NewSet(
				traceSpec("mirror", filters.PhaseMirror, &log), traceSpec("headers", filters.PhaseTransform, &log), traceSpec("cors", filters.PhaseCORS, &log),
				traceSpec("also-headers", filters.PhaseTransform, &log), traceSpec("rewrite", filters.PhaseRewrite, &log))
			if err != nil {
				t.Fatal(err)
			}
			chain, err := set.Compile(tt.items, &filters.Builder{})
			if err != nil {
				t.Fatal(err)
			}
			x := &exchange.Exchange{}
			action, ran, err := chain.OnRequest(t.Context(), x)
			if action != tt.action || (err != nil) != tt.wantErr || tt.wantErr && !errors.Is(err, errTrace) {
				t.Errorf("OnRequest: %v, %v", action, err)
			}
			chain.OnResponse(x, ran)
			if got := strings.Join(log, " "); got != tt.want {
				t.Errorf("ran %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPhasesAreInOrder(t *testing.T) {
	phases := []filters.Phase{
		filters.PhaseCORS, filters.PhaseAuthenticate, filters.PhaseAuthorize, filters.PhaseRateLimit, filters.PhaseTransform, filters.PhaseRedirect,
		filters.PhaseRewrite, filters.PhaseMirror,
	}
	if !slices.IsSorted(phases) {
		t.Errorf("phases are %v", phases)
	}
}

func TestSet(t *testing.T) {
	var log []string
	spec := traceSpec("headers", filters.PhaseTransform, &log)
	if _, err := filters.NewSet(spec, traceSpec("cors", filters.PhaseCORS, &log), spec); err == nil || !strings.Contains(err.Error(), `"headers" is listed twice`) {
		t.Errorf("two of one kind: %v", err)
	}
	described := traceSpec("cors", filters.PhaseCORS, &log)
	described.Describe = func(payload []byte) string { return "described " + string(payload) }
	set, err := filters.NewSet(spec, described)
	if err != nil {
		t.Fatal(err)
	}
	bad, good := filters.Encode(traceConfig{Bad: true}), filters.Encode(traceConfig{Name: "a"})
	if err := set.Validate("headers", good); err != nil {
		t.Errorf("Validate: %v", err)
	}
	for name, tt := range map[string]struct {
		kind    string
		payload []byte
		want    string
	}{
		"unknown kind": {"lua", good, `filter kind "lua" is not known to this gateway`},
		"bad payload":  {"headers", bad, "filter headers: failed as asked"},
	} {
		if err := set.Validate(tt.kind, tt.payload); err == nil || err.Error() != tt.want {
			t.Errorf("%s: Validate: %v, want %s", name, err, tt.want)
		}
		if _, err := set.Compile([]filters.Item{{Kind: "cors", Payload: good}, {Kind: tt.kind, Payload: tt.payload}}, &filters.Builder{}); err == nil || err.Error() != tt.want {
			t.Errorf("%s: Compile: %v, want %s", name, err, tt.want)
		}
	}
	for kind, want := range map[string]string{"cors": "described {}", "headers": "", "lua": ""} {
		if got := set.Describe(kind, []byte("{}")); got != want {
			t.Errorf("Describe(%s) = %q, want %q", kind, got, want)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for payload, want := range map[string]string{
		`{"name":"a"}`:          "",
		"{}\n":                  "",
		"":                      "EOF",
		"{":                     "EOF",
		`{"name":1}`:            "name",
		`{"nmae":"a"}`:          "nmae",
		`{"name":"a"} {}`:       "something follows",
		`{"name":"a"} x`:        "something follows",
		`{"name":"a"}` + "\x00": "something follows",
	} {
		_, err := filters.Decode[traceConfig]([]byte(payload))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: err = %v, want %q", payload, err, want)
		}
	}
}

func TestSlots(t *testing.T) {
	b := &filters.Builder{}
	first, second, third := filters.NewSlot[string](b), filters.NewSlot[int](b), filters.NewSlot[string](b)
	x, other := &exchange.Exchange{}, &exchange.Exchange{}
	if v, ok := second.Get(x); ok || v != 0 {
		t.Errorf("before Set: %v, %v", v, ok)
	}
	third.Set(x, "c")
	if v, ok := first.Get(x); ok || v != "" {
		t.Errorf("a slot below one that is set: %q, %v", v, ok)
	}
	first.Set(x, "a")
	second.Set(x, 7)
	first.Set(x, "b")
	a, okA := first.Get(x)
	n, okN := second.Get(x)
	c, okC := third.Get(x)
	if a != "b" || n != 7 || c != "c" || !okA || !okN || !okC {
		t.Errorf("got %q %v, %d %v, %q %v", a, okA, n, okN, c, okC)
	}
	if v, ok := first.Get(other); ok {
		t.Errorf("another exchange has %q", v)
	}
}
