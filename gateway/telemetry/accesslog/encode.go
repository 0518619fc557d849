package accesslog

import (
	"context"
	"log/slog"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	message  = "access"
	maxAttrs = 24
	// chunk is how many encoded bytes are written at once.
	chunk = 64 << 10
	// none stands where there is nothing to say but a reader expects a word.
	none = "-"
)

// encode appends the cursor's next record as a JSON line. Every string goes through the JSON handler, which escapes control
// characters and replaces invalid UTF-8: a line is one line whatever a client sends.
func (l *Log) encode(c *cursor) {
	r, texts := c.advance()
	protocol := "unknown"
	if r.proto <= exchange.HTTP3 {
		protocol = r.proto.String()
	}
	flag := none
	if r.flag != "" {
		flag = string(r.flag)
	}
	a := append(l.attrs[:0],
		slog.Int64("duration_us", r.took.Microseconds()),
		slog.Int("status", r.status),
		slog.String("flag", flag),
		slog.String("method", texts[textMethod]),
		slog.String("authority", texts[textAuthority]),
		slog.String("path", texts[textPath]),
		slog.String("protocol", protocol),
		slog.Int64("bytes_in", r.bytesIn),
		slog.Int64("bytes_out", r.bytesOut),
	)
	route, rule := "", ""
	if r.route != nil {
		route, rule = r.route.Route, r.route.Rule
	}
	a = append(a,
		slog.String("route", route),
		slog.String("rule", rule),
		slog.String("cluster", r.cluster),
		slog.String("endpoint", r.endpoint),
		slog.Int("attempts", r.attempts),
		slog.String("bind", r.bind),
		slog.String("client", texts[textClient]),
		slog.String("user_agent", texts[textUserAgent]),
		slog.String("request_id", texts[textRequestID]),
		slog.String("trace_id", texts[textTraceID]),
	)
	if detail := texts[textDetail]; detail != "" {
		a = append(a, slog.String("detail", detail))
	}
	l.attrs = a
	line := slog.NewRecord(r.start.UTC(), slog.LevelInfo, message, 0)
	// A group without a name is written in line: one Attr carries them all and the Record needs no slice of its own.
	line.AddAttrs(slog.Attr{Value: slog.GroupValue(a...)})
	if err := l.handler.Handle(context.Background(), line); err != nil { // a bytes.Buffer does not fail
		l.failed.Add(1)
		return
	}
	l.pending++
}
