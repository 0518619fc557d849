package filters_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestCompileInOrder: the list decides, not the phases; what a filter does to the authority takes no effect; and its slots are not those of a
// rule's chain in the same exchange.
func TestCompileInOrder(t *testing.T) {
	var ran []string
	spec := func(kind string, phase filters.Phase) filters.Spec {
		return filters.Spec{
			Kind: kind, Phase: phase, Validate: func([]byte) error { return nil },
			Clusters: func([]byte) []string { return []string{"to-" + kind} },
			Build: func(_ []byte, b *filters.Builder) (filters.Filter, error) {
				return &hostile{kind: kind, ran: &ran, slot: filters.NewSlot[string](b)}, nil
			},
		}
	}
	set, err := filters.NewSet(spec("late", filters.PhaseMirror), spec("early", filters.PhaseCORS))
	if err != nil {
		t.Fatal(err)
	}
	items := []filters.Item{{Kind: "late"}, {Kind: "early"}, {Kind: "late"}}
	listener, err := set.CompileInOrder(items)
	if err != nil {
		t.Fatal(err)
	}
	rule, err := set.Compile(items, &filters.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Req: exchange.Head{Authority: "mine"}}
	for range 2 { // the second time each finds what it kept, and nobody else's
		if _, n, err := listener.OnRequest(t.Context(), x); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		if x.Req.Authority != "mine" || x.Req.Fields.Has(exchange.Host) {
			t.Errorf("authority %q, fields %v", x.Req.Authority, x.Req.Fields)
		}
		if _, n, err := rule.OnRequest(t.Context(), x); n != 3 || err != nil || x.Req.Authority != "other" {
			t.Fatal(n, err, x.Req.Authority)
		}
		x.Req.Authority = "mine"
		x.Req.Fields.DelID(exchange.Host)
	}
	want := "late early late early late late "
	if got := strings.Join(ran, " ") + " "; got != want+want {
		t.Errorf("ran %s, want %s", got, want+want)
	}
	if got := set.Clusters("late", nil); len(got) != 1 || got[0] != "to-late" || set.Clusters("unknown", nil) != nil {
		t.Errorf("clusters %v", got)
	}
	if _, err := set.CompileInOrder([]filters.Item{{Kind: "unknown"}}); err == nil {
		t.Error("an unknown kind is taken")
	}
}

// hostile changes the authority, and keeps its own address in its slot.
type hostile struct {
	kind string
	ran  *[]string
	slot filters.Slot[string]
}

func (h *hostile) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	mine := fmt.Sprintf("%p", h)
	if kept, ok := h.slot.Get(x); ok && kept != mine {
		return filters.Continue, fmt.Errorf("%s found what another filter kept", h.kind)
	}
	h.slot.Set(x, mine)
	x.Req.Authority = "other"
	x.Req.Fields.Add("Host", "other")
	*h.ran = append(*h.ran, h.kind)
	return filters.Continue, nil
}

func (*hostile) OnResponse(*exchange.Exchange) {}
