package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/publish"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// feed is a Source that the test drives; an error of ended ends Watch.
type feed struct {
	states chan *source.State
	ended  chan error
	taken  chan struct{} // one for each state handed to the Loop
}

func newFeed() *feed {
	return &feed{states: make(chan *source.State), ended: make(chan error), taken: make(chan struct{}, 100)}
}

func (f *feed) Watch(ctx context.Context, changed func(*source.State)) error {
	for {
		select {
		case s := <-f.states:
			changed(s)
			f.taken <- struct{}{}
		case err := <-f.ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// planner translates a state to the plan that the test laid down for it.
type planner map[*source.State]*plan.Plan

func (p planner) Translate(s *source.State) *plan.Plan { return p[s] }

// proxy is a publish.Target that answers as it is told, after gate when that is set.
type proxy struct {
	gate    chan struct{}
	began   chan *config.Config
	applied map[*config.Config]config.Applied
	errs    map[*config.Config]error
}

func (p *proxy) Apply(_ context.Context, c *config.Config) (config.Applied, error) {
	p.began <- c
	if p.gate != nil {
		<-p.gate
	}
	return p.applied[c], p.errs[c]
}

type lab struct {
	*Loop
	feed    *feed
	planner planner
	proxy   *proxy
	reports chan *Report
	ran     chan error
	log     *bytes.Buffer // read only after Run has ended, or between a report and the next state
}

func newLab(t *testing.T, gated bool) *lab {
	t.Helper()
	l := &lab{
		feed: newFeed(), planner: planner{}, reports: make(chan *Report, 100), ran: make(chan error, 1), log: &bytes.Buffer{},
		proxy: &proxy{began: make(chan *config.Config, 100), applied: map[*config.Config]config.Applied{}, errs: map[*config.Config]error{}},
	}
	if gated {
		l.proxy.gate = make(chan struct{})
	}
	l.Loop = New(l.feed, l.planner, publish.New(l.proxy), slog.New(slog.NewTextHandler(l.log, nil)), func(r *Report) { l.reports <- r })
	return l
}

func (l *lab) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.ran <- l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// state lays down what a new state translates to: listeners by name, and problems.
func (l *lab) state(listeners []string, problems ...problem.Problem) (*source.State, *config.Config) {
	s, c := source.NewState(), &config.Config{}
	for _, name := range listeners {
		c.Listeners = append(c.Listeners, &config.Listener{
			Name: name, Port: 80, Origin: config.Origin{Kind: "Gateway", Namespace: "ns", Name: "gw", Rule: name},
		})
	}
	l.planner[s] = &plan.Plan{Config: c, Problems: problems}
	return s, c
}

func (l *lab) send(s *source.State) *Report {
	l.feed.states <- s
	return <-l.reports
}

// TestCoalescing: states that arrive while one is being applied replace each other.
func TestCoalescing(t *testing.T) {
	l := newLab(t, true)
	var states []*source.State
	var configs []*config.Config
	for range 5 {
		s, c := l.state(nil)
		states, configs = append(states, s), append(configs, c)
	}
	l.start(t)
	l.feed.states <- states[0]
	if got := <-l.proxy.began; got != configs[0] {
		t.Fatal("another configuration than the first")
	}
	<-l.feed.taken
	for _, s := range states[1:] {
		l.feed.states <- s
		<-l.feed.taken
	}
	close(l.proxy.gate)
	if got := <-l.proxy.began; got != configs[4] {
		t.Error("the newest state was not the next")
	}
	<-l.reports
	if r := <-l.reports; r.Version != 2 || r.Config != configs[4] {
		t.Errorf("version %d", r.Version)
	}
	if len(l.proxy.began) > 0 {
		t.Errorf("%d more configurations were applied", len(l.proxy.began))
	}
}

// TestRefused: the running configuration stays, in the proxy and in the report, and the next good one mends it.
func TestRefused(t *testing.T) {
	l := newLab(t, false)
	first, firstConfig := l.state([]string{"a"})
	bad, badConfig := l.state([]string{"a", "b"}, problem.Problem{Kind: "Gateway", Name: "gw", Reason: problem.HostnameConflict, Message: "m"})
	good, goodConfig := l.state(nil)
	l.proxy.errs[badConfig] = errors.New("two of a kind")
	l.start(t)
	before := l.send(first)
	if before.Refused != "" || before.Config != firstConfig || !before.Serving || before.Applied.IsZero() || l.Ready() != nil {
		t.Fatalf("got %+v, %v", before, l.Ready())
	}
	r := l.send(bad)
	if r.Refused != "two of a kind" || r.Config != firstConfig || r.Version != 2 || !r.Applied.Equal(before.Applied) || !r.Serving || len(r.Problems) != 1 {
		t.Errorf("got %+v", r)
	}
	if l.Report() != r || l.Ready() != nil {
		t.Errorf("not ready though the first configuration serves: %v", l.Ready())
	}
	if r := l.send(good); r.Refused != "" || r.Config != goodConfig || r.Version != 3 || !r.Applied.After(before.Applied) {
		t.Errorf("got %+v", r)
	}
}

// TestReady: from nothing over each way of not serving to serving.
func TestReady(t *testing.T) {
	l := newLab(t, false)
	if err := l.Ready(); err == nil || !strings.Contains(err.Error(), "not applied yet") {
		t.Errorf("before the first state: %v", err)
	}
	text, err := json.Marshal(l.Report())
	if err != nil || !strings.Contains(string(text), `"problems":[]`) {
		t.Errorf("the first report is %s, %v", text, err)
	}
	unbound := errors.New("address already in use")
	l.start(t)
	for _, step := range []struct {
		listeners []string
		failing   []string
		refused   error
		want      string // "" when ready
	}{
		{[]string{"a"}, nil, errors.New("broken"), "first configuration is refused: broken"},
		{[]string{"a", "b"}, []string{"a", "b"}, nil, "no listener could be bound"},
		{[]string{"a", "b"}, []string{"b"}, nil, ""},
		{[]string{"a", "b"}, nil, errors.New("broken"), ""},
		{[]string{"a"}, []string{"a"}, nil, "no listener could be bound"},
		{nil, nil, nil, ""},
	} {
		s, c := l.state(step.listeners)
		l.proxy.errs[c] = step.refused
		l.proxy.applied[c] = config.Applied{Listeners: map[string]error{}}
		for _, name := range step.failing {
			l.proxy.applied[c].Listeners[name] = unbound
		}
		r := l.send(s)
		if err := l.Ready(); (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("%+v: %v", step, err)
		}
		if step.refused == nil && len(r.Problems) != len(step.failing) {
			t.Errorf("%+v: problems %v", step, r.Problems)
		}
	}
}

// TestProblemsLoggedOnce: when they appear and when they are gone, and not in between.
func TestProblemsLoggedOnce(t *testing.T) {
	l := newLab(t, false)
	one := problem.Problem{Kind: "HTTPRoute", Namespace: "ns", Name: "one", Reason: problem.BackendNotFound, Message: "no service"}
	two := problem.Problem{Kind: "HTTPRoute", Namespace: "ns", Name: "two", Reason: problem.InvalidFilter, Message: "bad"}
	l.start(t)
	for _, problems := range [][]problem.Problem{{one, one}, {one, two}, {two, one}, {two}, {}, {one}} {
		s, _ := l.state(nil, problems...)
		l.send(s)
	}
	l.feed.ended <- errors.New("over")
	<-l.ran
	l.ran <- nil
	log := l.log.String()
	for text, want := range map[string]int{
		`msg="set aside" object=HTTPRoute/ns/one`: 2, `msg="set aside" object=HTTPRoute/ns/two`: 1,
		`msg="problem solved" object=HTTPRoute/ns/one`: 1, `msg="problem solved" object=HTTPRoute/ns/two`: 1,
	} {
		if got := strings.Count(log, text); got != want {
			t.Errorf("%s: %d times, want %d, in:\n%s", text, got, want, log)
		}
	}
}

// TestRunEnds with its source or its context, and leaves no goroutine that would send to nobody.
func TestRunEnds(t *testing.T) {
	t.Run("source", func(t *testing.T) {
		l := newLab(t, false)
		l.start(t)
		failed := errors.New("the folder is gone")
		l.feed.ended <- failed
		if err := <-l.ran; !errors.Is(err, failed) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("context", func(t *testing.T) {
		l := newLab(t, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestProblems: the source's, the translator's and the proxy's, in the order of their places.
func TestProblems(t *testing.T) {
	s := source.NewState()
	s.Where[source.Ref{Kind: "Gateway", Namespace: "ns", Name: "gw"}] = source.Location{File: "a.yaml", Line: 3}
	s.Problems = []problem.Problem{{File: "b.yaml", Reason: problem.Unparsable, Message: "m"}}
	p := &plan.Plan{
		Config: &config.Config{
			Listeners: []*config.Listener{{Name: "l", Origin: config.Origin{Kind: "Gateway", Namespace: "ns", Name: "gw", Rule: "http"}}, {Name: "fine"}},
			Clusters:  []*config.Cluster{{Name: "c", Origin: config.Origin{Kind: "Service", Namespace: "ns", Name: "s"}}},
		},
		Problems: []problem.Problem{{File: "a.yaml", Line: 1, Reason: problem.UnknownClass, Message: "m"}},
	}
	got := Problems(s, p, config.Applied{
		Listeners: map[string]error{"l": errors.New("in use")}, Clusters: map[string]error{"c": errors.New("bad CA")},
	}, time.Now())
	var lines []string
	for _, g := range got {
		lines = append(lines, g.Error()+" / "+g.SetAside)
	}
	want := []string{
		"Service/ns/s: bad CA (InvalidBackend) / requests to it are answered 500",
		"a.yaml:1: m (UnknownClass) / ",
		"a.yaml:3: Gateway/ns/gw: in use (AddressNotUsable) / listener http",
		"b.yaml: m (Unparsable) / ",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if len(s.Problems) != 1 || len(p.Problems) != 1 {
		t.Error("the inputs changed")
	}
}
