package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// wrkReport makes wrk print its figures for a program: wrk's own report has no 99.9th percentile. Microseconds.
const wrkReport = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("report %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
`

// wrkScript is the Lua for a load. One request is built by wrk itself, once; of several, the next is picked by a counter.
func wrkScript(requests []Request) string {
	var b strings.Builder
	if len(requests) == 1 && requests[0].Header == "" {
		return wrkReport
	}
	b.WriteString("local built, at = {}, 0\ninit = function(args)\n")
	for _, r := range requests {
		fields := "nil"
		if name, value, ok := strings.Cut(r.Header, ": "); ok {
			// wrk takes given fields in place of its own, Host among them.
			fields = fmt.Sprintf(`{["Host"] = wrk.headers["Host"], [%q] = %q}`, name, value)
		}
		fmt.Fprintf(&b, "  built[#built + 1] = wrk.format(\"GET\", %q, %s)\n", r.Path, fields)
	}
	b.WriteString("end\nrequest = function()\n  at = at % #built + 1\n  return built[at]\nend\n")
	return b.String() + wrkReport
}

// wrk runs wrk twice, the first time to warm up.
func (l Closed) wrk(ctx context.Context, e *Env) (Result, error) {
	script := filepath.Join(e.Dir, "wrk.lua")
	if err := os.WriteFile(script, []byte(wrkScript(l.Requests)), 0o600); err != nil {
		return Result{}, err
	}
	url := "http://" + e.Plain
	if l.Protocol == H1TLS {
		url = "https://" + e.TLS
	}
	run := func(d time.Duration) (Result, error) {
		seconds := max(int((d+time.Second/2)/time.Second), 1) // wrk takes whole ones
		out, err := output(ctx, e.Wrk, "-t1", "-c"+strconv.Itoa(l.Conns), fmt.Sprintf("-d%ds", seconds), "-s", script, url+l.Requests[0].Path)
		if err != nil {
			return Result{}, err
		}
		return parseWrk(out)
	}
	return twice(e, run)
}

// twice warms up and measures with a tool that does one run a process.
func twice(e *Env, run func(time.Duration) (Result, error)) (Result, error) {
	if e.Warm > 0 {
		if res, err := run(e.Warm); err != nil {
			return res, fmt.Errorf("warming up: %w", err)
		}
	}
	e.Begin()
	res, err := run(e.Measure)
	e.End()
	if err == nil && res.Requests == 0 {
		err = fmt.Errorf("no request ended well, %d failed", res.Errors)
	}
	return res, err
}

// output runs a tool and returns its stdout.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s%s", filepath.Base(path), err, stderr.Bytes(), tail(out, 300))
	}
	return out, nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// parseWrk reads the line that wrkReport prints. Requests in wrk's count include those with a bad status.
func parseWrk(out []byte) (Result, error) {
	for line := range bytes.Lines(out) {
		rest, ok := bytes.CutPrefix(line, []byte("report "))
		if !ok {
			continue
		}
		var n [8]int64
		fields := bytes.Fields(rest)
		if len(fields) != len(n) {
			break
		}
		for i, f := range fields {
			var err error
			if n[i], err = strconv.ParseInt(string(f), 10, 64); err != nil {
				return Result{}, fmt.Errorf("wrk's report: %w", err)
			}
		}
		micro := func(i int) time.Duration { return time.Duration(n[i]) * time.Microsecond }
		res := Result{
			Tool: "wrk", Requests: n[0] - n[4], Seconds: micro(1).Seconds(), Bytes: n[2], Errors: n[3] + n[4],
			P50: micro(5), P99: micro(6), P999: micro(7),
		}
		if res.Errors > 0 {
			res.FirstError = fmt.Sprintf("wrk counts %d broken connections and %d bad statuses", n[3], n[4])
		}
		return res, nil
	}
	return Result{}, errors.New("wrk printed no report")
}
