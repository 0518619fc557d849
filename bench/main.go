package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"gatehouse.dev/gatehouse/bench/internal/peer"
)

// options are what the command line says.
type options struct {
	scenarios string
	peers     string
	rounds    int
	measure   time.Duration
	warm      time.Duration
	rate      float64
	quiet     time.Duration
	out       string
	profile   string
	ownLoad   bool
	list      bool
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.scenarios, "scenario", "*", "`names` of scenarios, separated by commas; body-* stands for all that begin so")
	f.StringVar(&o.peers, "peers", "", "`kinds` of proxies, separated by commas: gatehouse, nginx, haproxy, caddy, traefik; \"\" is all that are found")
	f.IntVar(&o.rounds, "rounds", 3, "how `often` each proxy is measured in a scenario")
	f.DurationVar(&o.measure, "duration", 5*time.Second, "how `long` each measurement lasts")
	f.DurationVar(&o.warm, "warm", time.Second, "how `long` to load before it")
	f.Float64Var(&o.rate, "rate", 0, "requests/s of the open loads, in place of the rate that they find")
	f.DurationVar(&o.quiet, "quiet", 0, "how `long` to wait, at most, for other processes to leave the machine alone; repeats what they disturbed, twice at most")
	f.StringVar(&o.out, "out", ".bench", "`folder` for results; each run makes a folder in it")
	f.StringVar(&o.profile, "profile", "", "`folder` for CPU profiles of gatehouse, one a scenario; profiling costs it some CPU")
	f.BoolVar(&o.ownLoad, "own-load", false, "do not use wrk and h2load")
	f.BoolVar(&o.list, "list", false, "list the scenarios and stop")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: scenarios are named by -scenario", f.Arg(0))
	case o.rounds < 1 || o.measure <= 0 || o.warm < 0:
		return o, errors.New("rounds and duration must be positive, warm not negative")
	}
	return o, nil
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == originCommand {
		if err := serveOrigin(); err != nil {
			fmt.Fprintln(os.Stderr, "bench origin:", err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	chosen, err := choose(scenarios(), o.scenarios)
	if err != nil {
		return err
	}
	if o.list {
		for _, s := range chosen {
			fmt.Printf("%-20s %s\n", s.name, s.about)
		}
		return nil
	}
	// The load's garbage is small; collecting it seldom keeps it off the clock.
	debug.SetGCPercent(400)
	var only []string
	if o.peers != "" {
		only = strings.Split(o.peers, ",")
	}
	peers, notes, err := peer.Find(os.Getenv, only)
	if err != nil {
		return err
	}
	if len(peers) == 0 {
		return errors.New("no proxy to measure: " + strings.Join(notes, "; "))
	}
	h, err := newHost(o)
	if err != nil {
		return err
	}
	defer h.close()
	h.notes = append(h.notes, notes...)
	r := &runner{o: o, host: h, peers: peers, progress: os.Stderr}
	return r.run(ctx, chosen, os.Stdout)
}
