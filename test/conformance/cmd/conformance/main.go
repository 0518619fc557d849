// Conformance runs the official Gateway API conformance suite against this repository's gateway in a throw-away cluster: it builds the suite,
// its echo servers and the cluster, installs the CustomResourceDefinitions and the gateway as its users do, runs the suite, keeps its report,
// and takes everything down again.
//
//	conformance -gatehouse bin/gatehouse -proxy bin/gatehouse-proxy -cluster bin/gatehouse-cluster [-only Test1,Test2] [-runs 3]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	gatehouse, proxy string // programs under test
	cluster          string // the program that makes clusters
	repository       string // root of the repository
	work             string // folder for what is built and for the cluster's state
	report           string // where the suite's report goes
	only, profiles   string
	runs             int
	keep             bool // leave the cluster up
	verbose          bool
}

func main() {
	var o options
	flag.StringVar(&o.gatehouse, "gatehouse", "bin/gatehouse", "the controller under test")
	flag.StringVar(&o.proxy, "proxy", "bin/gatehouse-proxy", "the proxy under test")
	flag.StringVar(&o.cluster, "cluster", "bin/gatehouse-cluster", "the program that makes clusters; see test/cluster")
	flag.StringVar(&o.repository, "repository", ".", "root of the repository")
	flag.StringVar(&o.work, "work", ".conformance", "folder for what is built, for logs and for the cluster's state")
	flag.StringVar(&o.report, "report", "", "where the suite's report goes; none is written when only some tests run")
	flag.StringVar(&o.only, "only", "", "names of tests, separated by commas; default all")
	flag.StringVar(&o.profiles, "profiles", "", "conformance profiles, separated by commas; default all five of a gateway")
	flag.IntVar(&o.runs, "runs", 1, "how often the suite runs, one after another, in the same cluster")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster up when done")
	flag.BoolVar(&o.verbose, "verbose", false, "show the suite's whole log")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) (err error) {
	for _, path := range []*string{&o.repository, &o.work, &o.gatehouse, &o.proxy, &o.cluster, &o.report} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(o.work, 0o755); err != nil {
		return err
	}
	built, err := build(ctx, o)
	if err != nil {
		return err
	}
	c := &cluster{program: o.cluster, sources: filepath.Join(o.repository, "test", "cluster"), state: filepath.Join(o.work, "cluster")}
	began := time.Now()
	if err := c.up(ctx, built.images); err != nil {
		return err
	}
	if !o.keep {
		defer func() {
			// Also after an interrupt: nothing is left running.
			if downErr := c.down(context.WithoutCancel(ctx)); err == nil {
				err = downErr
			}
		}()
	}
	fmt.Printf("cluster up after %s; KUBECONFIG=%s\n", time.Since(began).Round(100*time.Millisecond), c.kubeconfig)
	if err := c.install(ctx, o, built); err != nil {
		return err
	}
	fmt.Printf("gateway installed after %s\n", time.Since(began).Round(100*time.Millisecond))
	for i := range o.runs {
		if err := runSuite(ctx, o, built, c, i+1); err != nil {
			return err
		}
	}
	return nil
}

// runSuite runs the suite once and prints what came of each test.
func runSuite(ctx context.Context, o *options, built *built, c *cluster, number int) error {
	log := filepath.Join(o.work, fmt.Sprintf("suite-%d.log", number))
	args := []string{"-test.v", "-test.timeout=30m", "-test.run=TestGatewayAPI", "-gateway-class=gatehouse",
		"-usable-address=" + c.usable, "-unusable-address=" + c.unusable,
		"-organization=gatehouse", "-project=gatehouse", "-url=https://gatehouse.dev", "-version=" + built.version,
		"-contact=https://gatehouse.dev/contact"}
	if o.only != "" {
		args = append(args, "-only="+o.only)
	} else if o.report != "" && o.profiles == "" {
		args = append(args, "-report-output="+o.report)
	}
	if o.profiles != "" {
		args = append(args, "-conformance-profiles="+o.profiles)
	}
	began := time.Now()
	result, err := watchSuite(ctx, built.suite, args, c.kubeconfig, log, o.verbose)
	fmt.Printf("run %d: %d passed, %d failed, %d skipped in %s; log %s\n", number, len(result.passed), len(result.failed), len(result.skipped),
		time.Since(began).Round(time.Second), log)
	if len(result.failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(result.failed, ", "))
	}
	return err
}
