package controller

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/publish"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// wanter is a feed that knows what it is asked for when the test says so.
type wanter struct {
	*feed
	known chan bool
	asked chan []config.Origin
}

func (w *wanter) Want(refs []config.Origin) bool {
	w.asked <- refs
	return <-w.known
}

// fleet is a Publisher whose proxies answer later.
type fleet struct {
	published chan *plan.Plan
	acks      chan publish.Ack // the answer to the next Ack
	version   uint64
}

func (f *fleet) Publish(_ context.Context, p *plan.Plan) publish.Ack {
	f.version++
	f.published <- p
	return publish.Ack{Version: f.version}
}

func (f *fleet) Ack() publish.Ack { return <-f.acks }

func (f *fleet) Running() *config.Config { return &config.Config{} }

type clusterLab struct {
	*Loop
	source  *wanter
	planner planner
	fleet   *fleet
	reports chan *Report
}

func newClusterLab(t *testing.T) *clusterLab {
	t.Helper()
	l := &clusterLab{
		source:  &wanter{newFeed(), make(chan bool), make(chan []config.Origin, 10)},
		planner: planner{}, reports: make(chan *Report, 10),
		fleet: &fleet{published: make(chan *plan.Plan, 10), acks: make(chan publish.Ack)},
	}
	l.Loop = New(l.source, l.planner, l.fleet, slog.New(slog.DiscardHandler), func(r *Report) { l.reports <- r })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the loop ended with %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return l
}

// TestHeldBack: a plan that wants what is not known yet is not published; the next state is.
func TestHeldBack(t *testing.T) {
	l := newClusterLab(t)
	first, second := source.NewState(), source.NewState()
	wants := []config.Origin{{Kind: "Secret", Namespace: "n", Name: "s"}}
	l.planner[first] = &plan.Plan{Config: &config.Config{}, Wants: wants}
	l.planner[second] = &plan.Plan{Config: &config.Config{}, Wants: wants}
	l.source.states <- first
	if got := <-l.source.asked; len(got) != 1 || got[0] != wants[0] {
		t.Errorf("asked for %v", got)
	}
	l.source.known <- false
	l.source.states <- second
	<-l.source.asked
	l.source.known <- true
	if got := <-l.fleet.published; got != l.planner[second] {
		t.Error("what was held back was published")
	}
	if r := <-l.reports; r.Version != 1 || r.Plan != l.planner[second] || len(l.fleet.published) != 0 {
		t.Errorf("version %d, %d more published", r.Version, len(l.fleet.published))
	}
}

// TestRefresh: what proxies say later is reported without translating again.
func TestRefresh(t *testing.T) {
	l := newClusterLab(t)
	s := source.NewState()
	l.planner[s] = &plan.Plan{Config: &config.Config{Listeners: []*config.Listener{
		{Name: "a", Origin: config.Origin{Kind: "Gateway", Namespace: "ns", Name: "gw", Rule: "a"}}, {Name: "b"},
	}}}
	l.Refresh() // before anything was published: nothing to report
	l.source.states <- s
	<-l.source.asked
	l.source.known <- true
	before := <-l.reports
	if len(before.Problems) != 0 {
		t.Fatalf("problems %v", before.Problems)
	}
	l.Refresh()
	l.Refresh()
	l.fleet.acks <- publish.Ack{Version: 1, Applied: config.Applied{Listeners: map[string]error{"a": errors.New("proxy p: port 80 is taken")}}}
	r := <-l.reports
	if len(r.Problems) != 1 || r.Problems[0].Reason != problem.AddressNotUsable || r.Plan != before.Plan || r.Version != 1 || !r.Applied.Equal(before.Applied) ||
		!r.Serving || len(l.fleet.published) != 1 {
		t.Errorf("got %+v", r)
	}
}
