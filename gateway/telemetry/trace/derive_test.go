package trace

import (
	"context"
	"errors"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestDerivedSampling: what a share means, for new traces and for those of callers.
func TestDerivedSampling(t *testing.T) {
	off, err := New(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	half, none, all := 0.5, 0.0, 1.0
	tests := map[string]struct {
		settings Settings
		in       incoming
		from, to int // of 10,000
	}{
		"the default, new":           {Settings{}, incoming{}, 30, 200}, // 1 %
		"half, new":                  {Settings{Share: &half}, incoming{}, 4_700, 5_300},
		"all, new":                   {Settings{Share: &all}, incoming{}, 10_000, 10_000},
		"none, sampled":              {Settings{Share: &none}, incoming{sampling: samplingYes}, 10_000, 10_000},
		"all, not sampled":           {Settings{Share: &all}, incoming{sampling: samplingNo}, 0, 0},
		"half of the sampled":        {Settings{Share: &all, ParentShare: &half}, incoming{sampling: samplingYes}, 4_700, 5_300},
		"half, of none":              {Settings{Share: &all, ParentShare: &half}, incoming{sampling: samplingNo}, 0, 0},
		"debug is never thinned":     {Settings{ParentShare: &none}, incoming{sampling: samplingDebug}, 10_000, 10_000},
		"ignoring the parent":        {Settings{Share: &none, IgnoreParent: true}, incoming{sampling: samplingYes}, 0, 0},
		"ignoring it, the other way": {Settings{Share: &all, IgnoreParent: true}, incoming{sampling: samplingNo}, 10_000, 10_000},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := off.Derive(t.Context(), tt.settings)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for range 10_000 {
				in := tt.in
				in.trace, in.span = newTraceID(), newSpanID()
				if d.sampler.sample(&in) {
					n++
				}
			}
			if n < tt.from || n > tt.to { // 6 standard deviations on either side
				t.Errorf("%d of 10,000, want %d to %d", n, tt.from, tt.to)
			}
		})
	}
}

// TestDerivedDestination: without a way to send there are no spans, and a way that fails is counted.
func TestDerivedDestination(t *testing.T) {
	all := 1.0
	fails := func(context.Context, []byte) error { return errors.New("no") }
	for name, tt := range map[string]struct {
		settings Settings
		on       bool
	}{
		"nowhere":   {Settings{Share: &all}, false},
		"disabled":  {Settings{Share: &all, Disabled: true, Send: fails}, false},
		"somewhere": {Settings{Share: &all, Send: fails}, true},
	} {
		off, err := New(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := off.Derive(t.Context(), tt.settings)
		if err != nil {
			t.Fatal(err)
		}
		if d.On() != tt.on {
			t.Errorf("%s: on is %v", name, d.On())
		}
		var s Span
		x := request(exchange.Fields{})
		d.Begin(t.Context(), x, &s)
		s.Answer(nil)
		s.End(x, 1, "a")
		if err := d.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if sent, lost := d.Stats(); sent != 0 || tt.on != (lost == 1) {
			t.Errorf("%s: %d sent, %d lost", name, sent, lost)
		}
	}
}
