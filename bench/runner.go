package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/bench/internal/load"
	"gatehouse.dev/gatehouse/bench/internal/peer"
	"gatehouse.dev/gatehouse/bench/internal/proc"
	"gatehouse.dev/gatehouse/bench/internal/report"
)

// runner measures scenarios. Within a scenario all peers are measured once, in turn, before any is measured again: what changes on the
// machine while a run lasts then touches all of them alike.
type runner struct {
	o        options
	host     *host
	peers    []*peer.Peer
	progress io.Writer
}

// run measures the scenarios and writes tables to w as they come, and all results into the output folder after each.
func (r *runner) run(ctx context.Context, list []scenario, w io.Writer) error {
	result := &report.Run{Began: time.Now(), Host: r.host.about, Measure: r.o.measure.Seconds(), Rounds: r.o.rounds, Notes: r.host.notes}
	for _, p := range r.peers {
		result.Host = append(result.Host, fmt.Sprintf("%s: version %s", p.Name, p.Version))
	}
	dir := filepath.Join(r.o.out, result.Began.Format("2006-01-02T15-04-05"))
	for _, line := range append(result.Host, result.Notes...) {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintf(w, "%d scenarios, about %v at least; results go to %s\n\n", len(list), r.estimate(list).Round(time.Minute), dir)
	for _, s := range list {
		measured := r.scenario(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result.Scenarios = append(result.Scenarios, measured)
		if err := measured.WriteTable(w); err != nil {
			return err
		}
		if err := save(result, dir); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) estimate(list []scenario) time.Duration {
	n := 0
	for _, s := range list {
		n += r.o.rounds * len(r.peers) * max(len(s.variants), 1)
	}
	return time.Duration(n) * (r.o.warm + r.o.measure + time.Second)
}

func save(run *report.Run, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer) error{"results.json": run.WriteJSON, "report.html": run.WriteHTML, "table.txt": run.WriteText} {
		var b strings.Builder
		if err := write(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// scenario measures one scenario in all rounds.
func (r *runner) scenario(ctx context.Context, s scenario) report.Scenario {
	out := report.Scenario{Name: s.name, About: s.about, Headline: s.headline}
	variants := s.variants
	if variants == nil {
		variants = []variant{{}}
	}
	type job struct {
		peer    *peer.Peer
		variant variant
	}
	var jobs []job
	for _, p := range r.peers {
		if why := lacks(p, s.needs); why != "" {
			out.Skipped = append(out.Skipped, p.Name+": "+why)
			continue
		}
		for _, v := range variants {
			jobs = append(jobs, job{p, v})
			out.Rows = append(out.Rows, report.Row{Peer: p.Name, Version: p.Version, Ours: p.Kind == peer.Ours, Variant: v.name})
		}
	}
	for round := range r.o.rounds {
		for i, j := range jobs {
			if ctx.Err() != nil {
				return out
			}
			row := &out.Rows[i]
			fmt.Fprintf(r.progress, "%s round %d: %s ... ", s.name, round+1, row.Label())
			sample := r.quietly(ctx, func() report.Sample {
				sample, err := r.measure(ctx, s, j.peer, j.variant)
				if err != nil {
					sample.Failed = err.Error()
				}
				return sample
			})
			sample.Round = round + 1
			row.Samples = append(row.Samples, sample)
			fmt.Fprintln(r.progress, oneLine(sample))
		}
	}
	out.Finish()
	return out
}

func lacks(p *peer.Peer, needs []peer.Need) string {
	for _, n := range needs {
		if why := p.Lacks(n); why != "" {
			return fmt.Sprintf("no %s: %s", n, why)
		}
	}
	return ""
}

func oneLine(s report.Sample) string {
	if s.Failed != "" {
		return "failed: " + s.Failed
	}
	return fmt.Sprintf("%.0f requests/s, %d errors, %.2f s of CPU in %.1f s", float64(s.Requests)/s.Seconds, s.Errors, s.CPU, s.Window)
}

// longest bounds one measurement beyond its warm-up and its measured part: starting with 50,000 routes, connecting 10,000 times.
const longest = 5 * time.Minute

// measure starts a proxy, loads it and ends it.
func (r *runner) measure(ctx context.Context, s scenario, p *peer.Peer, v variant) (report.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, longest+r.o.warm+r.o.measure)
	defer cancel()
	dir, err := os.MkdirTemp(r.host.dir, "run-")
	if err != nil {
		return report.Sample{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	setup := s.setup
	setup.Dir, setup.Cert, setup.Key = filepath.Join(dir, "proxy"), r.host.cert, r.host.key
	setup.Origin, setup.Collector = r.host.http, "http://"+r.host.http
	if setup.GRPC {
		setup.Origin = r.host.grpc
	}
	if v.change != nil {
		v.change(&setup)
	}
	running, err := p.Start(ctx, setup, r.host.proxyCPUs)
	if err != nil {
		return report.Sample{}, err
	}
	defer running.Stop()
	m := &meter{usage: running.Usage, rest: others}
	env := &load.Env{
		Plain: running.Plain, TLS: running.TLS, Dir: dir, Warm: r.o.warm, Measure: r.o.measure,
		Wrk: r.host.wrk, H2load: r.host.h2load, Begin: m.begin, End: m.end, Memory: m.memory, Change: running.Change, Rate: r.o.rate,
	}
	if r.o.profile != "" && p.Kind == peer.Ours {
		var done sync.WaitGroup
		defer done.Wait() // before the gateway is stopped
		env.Begin = func() {
			done.Go(func() { r.profile(ctx, running.Admin, s.name, p.Name) })
			m.begin()
		}
	}
	res, err := s.load.Run(ctx, env)
	sample := toSample(res, m)
	sample.Ready = running.Ready.Seconds()
	if err = errors.Join(err, m.err); err != nil {
		return sample, errors.Join(err, running.Explain())
	}
	return sample, nil
}

func toSample(res load.Result, m *meter) report.Sample {
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return report.Sample{
		Tool: res.Tool, Seconds: res.Seconds, Requests: res.Requests, Errors: res.Errors, Reconnects: res.Reconnects, Bytes: res.Bytes,
		CPU: (m.after.CPU - m.before.CPU).Seconds(), Window: m.window.Seconds(), Others: m.others.Seconds(), RSS: m.after.RSS,
		P50: micros(res.P50), P99: micros(res.P99), P999: micros(res.P999), Late: micros(res.Late),
		Rate: res.Rate, PerConnection: res.PerConnection, Changes: res.Changes, Applied: micros(res.Applied), FirstError: res.FirstError,
	}
}

// meter reads what a proxy has used at the edges of the measured part, and what the rest of the machine did meanwhile.
type meter struct {
	usage func() (proc.Usage, error)
	rest  func() (time.Duration, error)

	before, after proc.Usage
	began         time.Time
	window        time.Duration
	// others is rest when the window began, and afterwards what it was in the window.
	others     time.Duration
	othersFrom time.Time
	err        error
}

// begin and end read the proxy last and first: the load goes on meanwhile.
func (m *meter) begin() {
	m.others, m.othersFrom = m.othersNow(), time.Now()
	m.before = m.now()
	m.began = time.Now()
}

func (m *meter) end() {
	m.window = time.Since(m.began)
	m.after = m.now()
	// Reading takes its time on a busy machine, and would make the others look busier than they are.
	share := float64(max(m.othersNow()-m.others, 0)) / float64(time.Since(m.othersFrom))
	m.others = time.Duration(share * float64(m.window))
}

func (m *meter) now() proc.Usage {
	u, err := m.usage()
	m.err = errors.Join(m.err, err)
	return u
}

func (m *meter) othersNow() time.Duration {
	d, err := m.rest()
	m.err = errors.Join(m.err, err)
	return d
}

// others is the CPU time that the machine has spent on what is no part of the benchmark: neither this process nor what it started.
func others() (time.Duration, error) {
	own, err := proc.UsageOf(os.Getpid())
	if err != nil {
		return 0, err
	}
	all, err := proc.Busy()
	return all - own.CPU, err
}

// quiet is how much of a CPU others may take, on average, for a machine to count as quiet.
const quiet = 0.1

// quietly measures when others leave the machine alone, as far as the options allow to wait for that. A measurement that they disturbed all
// the same is repeated, twice at most, and the least disturbed one counts: how much others did says nothing about how the proxy fared.
func (r *runner) quietly(ctx context.Context, measure func() report.Sample) report.Sample {
	share := func(s report.Sample) float64 {
		if s.Failed != "" {
			return 1e9
		}
		return s.Others / s.Window
	}
	var best report.Sample
	for try := range 3 {
		r.waitQuiet(ctx)
		s := measure()
		if try == 0 || share(s) < share(best) {
			best = s
		}
		if r.o.quiet == 0 || share(best) < quiet || ctx.Err() != nil {
			break
		}
	}
	return best
}

// waitQuiet waits until others leave the machine alone, or for as long as the options allow.
func (r *runner) waitQuiet(ctx context.Context) {
	const look = 500 * time.Millisecond
	for end := time.Now().Add(r.o.quiet); time.Now().Before(end) && ctx.Err() == nil; {
		before, err := others()
		if err != nil {
			return // then it cannot be told; the measurement meets the same error
		}
		select {
		case <-ctx.Done():
		case <-time.After(look):
		}
		after, err := others()
		if err != nil || (after-before).Seconds() < quiet*look.Seconds() {
			return
		}
	}
}

func (m *meter) memory() (int64, error) {
	u, err := m.usage()
	return u.RSS, err
}

// profile fetches a CPU profile of the measured part.
func (r *runner) profile(ctx context.Context, admin, scenario, name string) {
	err := func() error {
		if err := os.MkdirAll(r.o.profile, 0o755); err != nil {
			return err
		}
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, max(int(r.o.measure.Seconds()), 1))
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		file, err := os.Create(filepath.Join(r.o.profile, scenario+"-"+strings.ReplaceAll(name, " ", "-")+".pprof"))
		if err != nil {
			return err
		}
		_, err = io.Copy(file, response.Body)
		return errors.Join(err, file.Close())
	}()
	if err != nil {
		fmt.Fprintln(r.progress, "no profile:", err)
	}
}
