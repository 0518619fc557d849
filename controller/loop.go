// Package controller turns what a source holds into what the proxies run: one goroutine takes the newest state, translates it,
// publishes the result and keeps a report of what came of it.
//
//	source -> Loop (coalescing) -> translator -> publish -> ack -> Report
//
// The loop is the same for a folder with the data plane in this process and for a cluster with the proxies of many Gateways. What differs is
// the Source and the Publisher: in a cluster the source is told which Secrets a plan wants (Wanter), and acks come in over time (Refresh).
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/controller/gatewayapi"
	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/publish"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Source is where states come from.
type Source interface {
	// Watch reports the state now and after each change, until ctx ends.
	Watch(ctx context.Context, changed func(*source.State)) error
}

// Wanter is a Source that reads some objects only when they are asked for.
type Wanter interface {
	// Want says which: all that the newest plan wants. It returns false when some of them are not known yet; then another state follows
	// shortly, and what was made of this one is held back.
	Want(refs []config.Origin) bool
}

// Publisher hands plans to the proxies, one at a time.
type Publisher interface {
	// Publish hands the next plan over and returns what is known of how it was taken.
	Publish(ctx context.Context, p *plan.Plan) publish.Ack
	// Ack returns what is known by now.
	Ack() publish.Ack
	// Running returns the configuration in effect.
	Running() *config.Config
}

// Translator makes a plan out of a state. It is called from one goroutine.
type Translator interface {
	Translate(*source.State) *plan.Plan
}

// Report is what came of the last state.
type Report struct {
	// Version counts the configurations published; 0 before the first.
	Version uint64 `json:"version"`
	// Applied is when the version took effect.
	Applied time.Time `json:"applied,omitzero"`
	// Refused says why the newest configuration was refused as a whole; the one shown still runs.
	Refused string `json:"refused,omitempty"`
	// Problems are everything set aside.
	Problems []problem.Problem `json:"problems"`
	// Config is the running configuration.
	Config *config.Config `json:"config"`
	// Serving says whether anything can be served: some listener is bound, or there is none to bind.
	Serving bool `json:"serving"`

	// Plan is what the version came from, and Took is how long translating and publishing it took.
	Plan *plan.Plan    `json:"-"`
	Took time.Duration `json:"-"`
}

// Loop runs a translator on a source's states. Report is safe for concurrent use; Run is called once.
type Loop struct {
	source     Source
	translator Translator
	publisher  Publisher
	logger     *slog.Logger
	onReport   func(*Report)
	acked      chan struct{} // has room for one: acks came in

	report atomic.Pointer[Report]
	logged map[problem.Problem]bool // what the log has said; Run's goroutine only
	state  *source.State            // that the report came from; Run's goroutine only
}

// New returns a Loop. onReport, if not nil, gets every Report from the loop's goroutine.
func New(s Source, t Translator, p Publisher, logger *slog.Logger, onReport func(*Report)) *Loop {
	if onReport == nil {
		onReport = func(*Report) {}
	}
	l := &Loop{source: s, translator: t, publisher: p, logger: logger, onReport: onReport, acked: make(chan struct{}, 1),
		logged: map[problem.Problem]bool{}}
	l.report.Store(&Report{Config: &config.Config{}, Problems: []problem.Problem{}})
	return l
}

// Report returns what came of the last state.
func (l *Loop) Report() *Report { return l.report.Load() }

// Ready says why nothing is served yet, or nil.
func (l *Loop) Ready() error {
	switch r := l.Report(); {
	case r.Version == 0:
		return fmt.Errorf("the first configuration is not applied yet")
	case r.Applied.IsZero():
		return fmt.Errorf("the first configuration is refused: %s", r.Refused)
	case !r.Serving:
		return fmt.Errorf("no listener could be bound; see /config")
	}
	return nil
}

// Run follows the source until ctx ends. States that arrive while one is being applied replace each other: only the newest counts.
func (l *Loop) Run(ctx context.Context) error {
	newest := make(chan *source.State, 1)
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		failed <- l.source.Watch(ctx, func(s *source.State) {
			select {
			case <-newest: // the loop has not taken it; nobody needs it any more
			default:
			}
			newest <- s // Watch calls from one goroutine: there is room
		})
	}()
	var due <-chan time.Time
	for {
		select {
		case s := <-newest:
			l.apply(ctx, s)
		case <-l.acked:
			if due == nil { // many proxies answer within a moment
				due = time.After(refreshDelay)
			}
		case <-due:
			due = nil
			l.refresh()
		case err := <-failed:
			return err
		}
	}
}

// refreshDelay is how long acks gather before the report is made anew.
const refreshDelay = 200 * time.Millisecond

// Refresh says that proxies acknowledged or refused something since: the report is made anew, without translating.
func (l *Loop) Refresh() {
	select {
	case l.acked <- struct{}{}:
	default: // a refresh is due already
	}
}

func (l *Loop) apply(ctx context.Context, s *source.State) {
	began := time.Now()
	planned := l.translator.Translate(s)
	if w, ok := l.source.(Wanter); ok && !w.Want(planned.Wants) {
		l.logger.Debug("held back until the objects that it refers to are read", "objects", len(planned.Wants))
		return
	}
	ack := l.publisher.Publish(ctx, planned)
	report := l.reported(s, planned, ack)
	report.Applied, report.Took = time.Now(), time.Since(began)
	if ack.Err != nil {
		before := l.Report()
		report.Refused, report.Applied, report.Serving = ack.Err.Error(), before.Applied, before.Serving
		l.logger.Error("configuration refused", "version", ack.Version, "error", ack.Err)
	} else {
		level := slog.LevelInfo
		if before := l.Report().Plan; before != nil && sameConfig(before.Config, planned.Config) {
			level = slog.LevelDebug // a change that concerns none of it, of which a cluster has many
		}
		l.logger.Log(ctx, level, "configuration applied", "version", ack.Version, "listeners", len(planned.Config.Listeners),
			"clusters", len(planned.Config.Clusters), "problems", len(report.Problems), "took", report.Took.Round(time.Microsecond).String())
	}
	l.state = s
	l.publishReport(report)
}

// sameConfig compares by identity.
func sameConfig(a, b *config.Config) bool {
	return slices.Equal(a.Listeners, b.Listeners) && slices.Equal(a.Clusters, b.Clusters) && slices.Equal(a.Certificates, b.Certificates)
}

// refresh makes the last report anew with what proxies have said since.
func (l *Loop) refresh() {
	before := l.Report()
	if l.state == nil {
		return
	}
	report := l.reported(l.state, before.Plan, l.publisher.Ack())
	report.Applied, report.Refused, report.Took = before.Applied, before.Refused, before.Took
	if report.Refused != "" {
		report.Serving = before.Serving
	}
	l.publishReport(report)
}

func (l *Loop) reported(s *source.State, p *plan.Plan, ack publish.Ack) *Report {
	return &Report{
		Version:  ack.Version,
		Config:   l.publisher.Running(),
		Problems: Problems(s, p, ack.Applied, time.Now()),
		Serving:  len(ack.Applied.Listeners) == 0 || len(ack.Applied.Listeners) < len(p.Config.Listeners),
		Plan:     p,
	}
}

func (l *Loop) publishReport(r *Report) {
	l.log(r.Problems)
	l.report.Store(r)
	l.onReport(r)
}

// log says each problem once, when it appears, and when it is gone.
func (l *Loop) log(problems []problem.Problem) {
	now := make(map[problem.Problem]bool, len(problems))
	for _, p := range problems {
		if !l.logged[p] && !now[p] {
			l.logger.Warn("set aside", place(p, "object", p.Object(), "field", p.Field, "reason", p.Reason, "message", p.Message,
				"what", p.SetAside)...)
		}
		now[p] = true
	}
	for p := range l.logged {
		if !now[p] {
			l.logger.Info("problem solved", "object", p.Object(), "field", p.Field, "reason", p.Reason)
		}
	}
	l.logged = now
}

// place adds where a problem stands, if it came from a file.
func place(p problem.Problem, attributes ...any) []any {
	if p.File != "" {
		attributes = append(attributes, "file", p.File, "line", p.Line)
	}
	return attributes
}

// Problems collects what the source, the translator and the proxy found, sorted.
func Problems(s *source.State, p *plan.Plan, applied config.Applied, now time.Time) []problem.Problem {
	all := slices.Concat([]problem.Problem{}, s.Problems, p.Problems, gatewayapi.Expiry(p.Config, now))
	for _, l := range p.Config.Listeners {
		if err := applied.Listeners[l.Name]; err != nil {
			all = append(all, s.Problem(of(l.Origin, problem.AddressNotUsable, err, "listener "+l.Origin.Rule)))
		}
	}
	for _, c := range p.Config.Clusters {
		if err := applied.Clusters[c.Name]; err != nil {
			all = append(all, s.Problem(of(c.Origin, problem.InvalidBackend, err, "requests to it are answered 500")))
		}
	}
	problem.Sort(all)
	return all
}

func of(o config.Origin, reason problem.Reason, err error, setAside string) problem.Problem {
	return problem.Problem{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Reason: reason, Message: err.Error(), SetAside: setAside}
}
