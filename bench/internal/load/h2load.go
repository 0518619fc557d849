package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// h2load runs h2load twice, the first time to warm up.
func (l Closed) h2load(ctx context.Context, e *Env) (Result, error) {
	log := filepath.Join(e.Dir, "h2load.log")
	run := func(d time.Duration) (Result, error) {
		// It appends.
		if err := os.Remove(log); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Result{}, err
		}
		began := time.Now()
		out, err := output(ctx, e.H2load, "-t1", "-c"+strconv.Itoa(l.Conns), "-m"+strconv.Itoa(max(l.Streams, 1)),
			fmt.Sprintf("-D%dms", d.Milliseconds()), "--log-file="+log, "https://"+e.TLS+l.Requests[0].Path)
		if err != nil {
			return Result{}, err
		}
		file, err := os.Open(log)
		if err != nil {
			return Result{}, fmt.Errorf("h2load's log: %w", err)
		}
		defer file.Close()
		res, err := parseH2load(out, file)
		if res.Seconds > time.Since(began).Seconds() {
			return res, fmt.Errorf("h2load says that it ran for %.1f s, which it did not", res.Seconds)
		}
		return res, err
	}
	return twice(e, run)
}

// parseH2load reads two lines of h2load's report,
//
//	finished in 5.01s, 41512.00 req/s, 7.92MB/s
//	requests: 207560 total, 207720 started, 207560 done, 207560 succeeded, 0 failed, 0 errored, 0 timeout
//
// and its log, which has a line a request: start in microseconds, status, microseconds until the end.
func parseH2load(out []byte, log io.Reader) (Result, error) {
	res := Result{Tool: "h2load"}
	finished := regexp.MustCompile(`finished in ([0-9.]+)(ms|us|s|m)?,`).FindSubmatch(out)
	requests := regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed`).FindSubmatch(out)
	if finished == nil || requests == nil {
		return res, fmt.Errorf("h2load's report is not understood: %s", tail(out, 300))
	}
	took, err := time.ParseDuration(string(finished[1]) + string(finished[2]))
	if err != nil {
		return res, fmt.Errorf("h2load's report: %w", err)
	}
	res.Seconds = took.Seconds()
	for i, into := range []*int64{&res.Requests, &res.Errors} {
		if *into, err = strconv.ParseInt(string(requests[i+1]), 10, 64); err != nil {
			return res, fmt.Errorf("h2load's report: %w", err)
		}
	}
	if res.Errors > 0 {
		res.FirstError = "h2load: " + string(requests[0])
	}
	var hist Hist
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 3 || string(fields[1]) != "200" {
			continue
		}
		micro, err := strconv.ParseInt(string(fields[2]), 10, 64)
		if err != nil {
			return res, fmt.Errorf("h2load's log: %w", err)
		}
		hist.Add(time.Duration(micro) * time.Microsecond)
	}
	res.percentiles(&hist)
	return res, nil
}
