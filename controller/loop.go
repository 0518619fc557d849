// Package controller turns what a source holds into what the proxies run: one goroutine takes the newest state, translates it,
// publishes the result and keeps a report of what came of it.
//
//	source -> Loop (coalescing) -> translator -> publish -> ack -> Report
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
}

// Loop runs a translator on a source's states. Report is safe for concurrent use; Run is called once.
type Loop struct {
	source     Source
	translator Translator
	publisher  *publish.Publisher
	logger     *slog.Logger
	onReport   func(*Report)

	report atomic.Pointer[Report]
	logged map[problem.Problem]bool // what the log has said; Run's goroutine only
}

// New returns a Loop. onReport, if not nil, gets every Report from the loop's goroutine.
func New(s Source, t Translator, p *publish.Publisher, logger *slog.Logger, onReport func(*Report)) *Loop {
	if onReport == nil {
		onReport = func(*Report) {}
	}
	l := &Loop{source: s, translator: t, publisher: p, logger: logger, onReport: onReport, logged: map[problem.Problem]bool{}}
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
	for {
		select {
		case s := <-newest:
			l.apply(ctx, s)
		case err := <-failed:
			return err
		}
	}
}

func (l *Loop) apply(ctx context.Context, s *source.State) {
	began := time.Now()
	planned := l.translator.Translate(s)
	ack := l.publisher.Publish(ctx, planned.Config)
	report := &Report{
		Version:  ack.Version,
		Applied:  time.Now(),
		Config:   l.publisher.Running(),
		Problems: Problems(s, planned, ack.Applied, time.Now()),
		Serving:  len(ack.Applied.Listeners) == 0 || len(ack.Applied.Listeners) < len(planned.Config.Listeners),
	}
	if ack.Err != nil {
		before := l.Report()
		report.Refused, report.Applied, report.Serving = ack.Err.Error(), before.Applied, before.Serving
		l.logger.Error("configuration refused", "version", ack.Version, "error", ack.Err)
	} else {
		l.logger.Info("configuration applied", "version", ack.Version, "listeners", len(planned.Config.Listeners),
			"clusters", len(planned.Config.Clusters), "problems", len(report.Problems), "took", time.Since(began).Round(time.Microsecond).String())
	}
	l.log(report.Problems)
	l.report.Store(report)
	l.onReport(report)
}

// log says each problem once, when it appears, and when it is gone.
func (l *Loop) log(problems []problem.Problem) {
	now := make(map[problem.Problem]bool, len(problems))
	for _, p := range problems {
		if !l.logged[p] && !now[p] {
			l.logger.Warn("set aside", "object", p.Object(), "field", p.Field, "reason", p.Reason, "message", p.Message,
				"file", p.File, "line", p.Line, "what", p.SetAside)
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
