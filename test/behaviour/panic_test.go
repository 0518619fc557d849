package behaviour

import (
	"context"
	"io"
	"net/http"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/test/harness"
)

// panics is a filter that cannot take one path.
type panics struct{}

func (panics) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	if x.Req.Path() == "/panic" {
		panic("a filter's mistake")
	}
	return filters.Continue, nil
}

func (panics) OnResponse(*exchange.Exchange) {}

// TestPanicEndsOneExchange has a filter panic: its client notices, and the gateway goes on.
func TestPanicEndsOneExchange(t *testing.T) {
	spec := filters.Spec{
		Kind: "panics", Phase: filters.PhaseTransform, Validate: func([]byte) error { return nil },
		Build: func([]byte, *filters.Builder) (filters.Filter, error) { return panics{}, nil },
	}
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "ok")
		}, func(o *harness.EnvOptions) {
			o.Filters = []filters.Spec{spec}
			o.Rule = func(r *config.Rule) { r.Filters = []config.Policy{{Kind: "panics"}} }
		})
		if r, err := harness.Do(env.NewClient(t), harness.Request{Target: "/panic"}); err == nil && r.Err == nil {
			t.Errorf("the client got %d", r.Status)
		}
		r, err := harness.Do(env.NewClient(t), harness.Request{})
		if err != nil || r.Status != 200 || string(r.Body) != "ok" {
			t.Errorf("afterwards: %+v, %v", r, err)
		}
	})
}
