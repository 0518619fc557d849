package h1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func TestResponses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	m := func(length int64, closes bool) string {
		return fmt.Sprintf("%+v\n", Message{Proto: exchange.HTTP11, Length: length, Close: closes})
	}
	old := func(length int64, closes bool) string {
		return fmt.Sprintf("%+v\n", Message{Proto: exchange.HTTP10, Length: length, Close: closes})
	}
	length := func(n string) string { return "\"Content-Length\": \"" + n + "\"\n" }
	tests := map[string]struct {
		raw    string
		method string // GET
		want   string
	}{
		"length":      {ok + "Content-Length: 5\r\n\r\nhello", "", "200\n" + length("5") + m(5, false) + content("hello")},
		"length 0":    {ok + "Content-Length: 0\r\n\r\n", "", "200\n" + length("0") + m(0, false) + content("")},
		"until close": {ok + "\r\nhello\r\n", "", "200\n" + m(UntilClose, true) + content("hello\r\n")},
		"close and length": {ok + "Connection: close\r\nContent-Length: 1\r\n\r\nx", "", "200\n\"Connection\": \"close\"\n" + length("1") +
			m(1, true) + content("x")},
		"HTTP/1.0": {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "", "200\n" + length("1") + old(1, true) + content("x")},
		"HTTP/1.0 that goes on": {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", "",
			"200\n\"Connection\": \"Keep-Alive\"\n" + length("1") + old(1, false) + content("x")},
		"chunked": {ok + "Transfer-Encoding: Chunked\r\nTrailer: X-A\r\n\r\n1\r\nx\r\n0\r\nX-A: 1\r\n\r\n", "",
			"200\n\"Transfer-Encoding\": \"Chunked\"\n\"Trailer\": \"X-A\"\n" + m(Chunked, false) + content("x") + "trailer \"X-A\": \"1\"\n"},
		"no reason":        {"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "", "200\n" + length("0") + m(0, false) + content("")},
		"no reason, short": {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", "200\n" + length("0") + m(0, false) + content("")},
		"odd reason":       {"HTTP/1.1 999 \t\xff(!) \r\nContent-Length: 0\r\n\r\n", "", "999\n" + length("0") + m(0, false) + content("")},
		"Host is a field": {ok + "Host: a\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", "",
			"200\n\"Host\": \"a\"\n\"Host\": \"b\"\n\"Expect\": \"100-continue\"\n" + length("0") + m(0, false) + content("")},
		"two of them": {ok + "Content-Length: 1\r\n\r\nx" + ok + "Content-Length: 0\r\n\r\n", "", "200\n" + length("1") + m(1, false) +
			content("x") + "200\n" + length("0") + m(0, false) + content("")},
		"HEAD with length": {ok + "Content-Length: 5\r\n\r\n", "HEAD", "200\n" + length("5") + m(5, false) + content("")},
		"HEAD with chunks": {ok + "Transfer-Encoding: chunked\r\n\r\n", "HEAD", "200\n\"Transfer-Encoding\": \"chunked\"\n" + m(Chunked,
			false) + content("")},
		"HEAD with nothing": {ok + "\r\n", "HEAD", "200\n" + m(Unsaid, false) + content("")},
		"204":               {"HTTP/1.1 204 No Content\r\n\r\n", "", "204\n" + m(Unsaid, false) + content("")},
		"204 of length 0":   {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "", "204\n" + length("0") + m(Unsaid, false) + content("")},
		"204 of length 1":   {"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n", "", "204\n" + length("1") + m(Unsaid, true) + content("")},
		"204 with chunks": {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "", "204\n\"Transfer-Encoding\": \"chunked\"\n" +
			m(Unsaid, true) + content("")},
		"304":             {"HTTP/1.1 304 Not Modified\r\n\r\n", "", "304\n" + m(Unsaid, false) + content("")},
		"304 with length": {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", "304\n" + length("9") + m(9, false) + content("")},
		"interim": {ContinueResponse + "HTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: 0\r\n\r\n" + ok + "Content-Length: 1\r\n\r\nx", "",
			"100\n" + m(Unsaid, false) + content("") + "103\n\"Link\": \"a\"\n" + length("0") + m(Unsaid, false) + content("") + "200\n" +
				length("1") + m(1, false) + content("x")},
		"CONNECT": {ok + "\r\n", "CONNECT", "200\n" + m(Unsaid, false) + content("")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.method == "" {
				tt.method = "GET"
			}
			if got := everyWay(t, tt.raw, script{method: tt.method}); got != tt.want+"error EOF\n" {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestRefusedResponses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := map[string]struct {
		raw  string
		want problem
	}{
		"length then chunked":   {ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", badFraming},
		"chunked then length":   {ok + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", badFraming},
		"chunked in HTTP/1.0":   {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", badOldEncoding},
		"chunked twice":         {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", badEncodings},
		"gzip, chunked":         {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", badEncoding},
		"identity":              {ok + "Transfer-Encoding: identity\r\n\r\n", badEncoding},
		"two lengths":           {ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", badLengths},
		"length that is none":   {ok + "Content-Length: 5,5\r\n\r\n", badLength},
		"length of HEAD":        {ok + "Content-Length: x\r\n\r\n", badLength},
		"bare LF":               {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", badLineEnd},
		"bare LF behind status": {"HTTP/1.1 200\nContent-Length: 0\n\n", badLineEnd},
		"bare LF in fields":     {ok + "X-A: 1\n\r\n", badLineEnd},
		"bare CR in reason":     {"HTTP/1.1 200 O\rK\r\n\r\n", badLineEnd},
		"NUL in reason":         {"HTTP/1.1 200 O\x00K\r\n\r\n", badStatusLine},
		"folded":                {ok + "X-A: 1\r\n b\r\n\r\n", badFold},
		"space before colon":    {ok + "X-A : 1\r\n\r\n", badNameSpace},
		"empty line before":     {"\r\n" + ok + "\r\n", badVersion},
		"HTTP/0.9":              {"<html>", badVersion},
		"HTTP/2":                {"HTTP/2 200 OK\r\n\r\n", badVersion},
		"HTTP/1.2":              {"HTTP/1.2 200 OK\r\n\r\n", badVersion},
		"ICY":                   {"ICY 200 OK\r\n\r\n", badVersion},
		"two digits":            {"HTTP/1.1 20 OK\r\n\r\n", badStatusLine},
		"four digits":           {"HTTP/1.1 2000 OK\r\n\r\n", badStatusLine},
		"a digit 0":             {"HTTP/1.1 099 OK\r\n\r\n", badStatusLine},
		"no digits":             {"HTTP/1.1 OK\r\n\r\n", badStatusLine},
		"two spaces":            {"HTTP/1.1  200 OK\r\n\r\n", badStatusLine},
		"no space":              {"HTTP/1.1200 OK\r\n\r\n", badStatusLine},
		"chunked 100":           {"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", badInterimFrame},
		"103 with length":       {"HTTP/1.1 103 Early Hints\r\nContent-Length: 1\r\n\r\n", badInterimFrame},
		"101 with length":       {"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 1\r\n\r\n", badInterimFrame},
		"bad chunk":             {ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n", badChunkSize},
		"head over the limit":   {ok + "X-A: " + strings.Repeat("a", defaultBytes) + "\r\n\r\n", tooLong},
		"fields over the limit": {ok + strings.Repeat("X-A: 1\r\n", defaultFields+1) + "\r\n", tooMany},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var r Reader
			r.Init(strings.NewReader(tt.raw), nil, Limits{})
			defer r.Release()
			var resp exchange.Response
			err := r.ReadResponse(&resp, &Message{}, "GET")
			if err == nil {
				_, err = io.ReadAll(&r)
			}
			if kind, why := causeOf(err); kind != exchange.UpstreamProtocol || why != tt.want {
				t.Errorf("%v, want %q", err, tt.want)
			}
			everyWay(t, tt.raw, script{method: "GET"})
		})
	}
}

func TestResponseEnds(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for raw, want := range map[string]error{
		"":                                io.EOF,
		"HTTP/1.1 2":                      io.ErrUnexpectedEOF,
		ok + "Content-Length: 2\r\n":      io.ErrUnexpectedEOF,
		ok + "Content-Length: 2\r\n\r\nx": io.ErrUnexpectedEOF,
	} {
		var r Reader
		r.Init(strings.NewReader(raw), nil, Limits{})
		err := r.ReadResponse(&exchange.Response{}, &Message{}, "GET")
		if err == nil {
			_, err = io.ReadAll(&r)
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", raw, err, want)
		}
	}
}

// TestSwitch reads what follows a 101 as raw bytes, those that came with it first.
func TestSwitch(t *testing.T) {
	var r Reader
	r.Init(io.MultiReader(strings.NewReader("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 "),
		strings.NewReader("raw\n")),
		nil, Limits{})
	var resp exchange.Response
	if err := r.ReadResponse(&resp, &Message{}, "GET"); err != nil || resp.Status != 101 || !r.Whole() {
		t.Fatalf("%d, %v", resp.Status, err)
	}
	if got := string(r.Buffered()); got != "HTTP/1.1 " {
		t.Errorf("%q came with the head", got)
	}
	r.Raw()
	if r.Whole() {
		t.Error("a raw stream is whole before its end")
	}
	if got, err := io.ReadAll(&r); string(got) != "HTTP/1.1 raw\n" || err != nil || !r.Whole() {
		t.Errorf("%q, %v", got, err)
	}
}
