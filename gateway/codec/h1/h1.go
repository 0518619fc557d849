// Package h1 is HTTP/1.1 and HTTP/1.0 messages on the wire (RFC 9112): a Reader that finds the messages of one connection one after
// another, and appenders that write heads and chunks. The server and the client of the gateway are built on it.
//
// Bytes of a connection go in; heads come out as views into the reader's buffer, bodies as a stream. What has two possible meanings is
// refused, not repaired: an intermediary that guesses is one that can be led to disagree with its neighbour on where a message ends.
// Nothing on the way allocates, except the memory for heads larger than the pooled buffers and the Fault that refuses a message.
//
// The package knows neither sockets nor time limits, and nothing of what a message is for.
package h1

import "gatehouse.dev/gatehouse/gateway/exchange"

// Limits bound a message head, and the trailers behind a chunked body as much again.
type Limits struct {
	// Bytes is the most that a head may take: from the request line's or status line's first byte to the end of the empty line.
	// Default 64 KiB.
	Bytes int
	// Fields is the most field lines. Default 200.
	Fields int
}

// What Message.Length may be besides a number of bytes.
const (
	// Chunked is a body of unknown length that tells its end by itself.
	Chunked = -1
	// UntilClose is a body that the end of the connection ends. Responses only.
	UntilClose = -2
	// Unsaid is no body and no word about the length of one: a response to HEAD, or one with status 1xx, 204 or 304, whose head does
	// not say how long the content would be. To write it means to write no framing field. Responses only.
	Unsaid = -3
)

// Message is what a head says about its message beyond exchange's types.
type Message struct {
	// Proto is exchange.HTTP10 or exchange.HTTP11. To write a response it is the client's: an HTTP/1.0 client is told of a connection
	// that persists.
	Proto exchange.Proto
	// Length is the body's length in bytes, or Chunked, UntilClose or Unsaid. In the response to a HEAD request, and in a 304, it is
	// what the head says of content that does not follow (see Reader.Whole).
	Length int64
	// Close says that the connection ends after this message.
	Close bool
	// Continue says that the client waits for 100 (Continue) before it sends its body (RFC 9110 10.1.1). The field is not in Fields
	// then; any other expectation is.
	Continue bool
}

// ContinueResponse is the interim response that asks a waiting client for its body.
const ContinueResponse = "HTTP/1.1 100 Continue\r\n\r\n"
