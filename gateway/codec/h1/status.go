package h1

import (
	"strconv"
	"sync/atomic"
	"time"
)

// reasons are the phrases of the IANA registry of status codes. Nothing reads them but people (RFC 9112 4).
const reasons = `100 Continue
101 Switching Protocols
102 Processing
103 Early Hints
200 OK
201 Created
202 Accepted
203 Non-Authoritative Information
204 No Content
205 Reset Content
206 Partial Content
207 Multi-Status
208 Already Reported
226 IM Used
300 Multiple Choices
301 Moved Permanently
302 Found
303 See Other
304 Not Modified
305 Use Proxy
307 Temporary Redirect
308 Permanent Redirect
400 Bad Request
401 Unauthorized
402 Payment Required
403 Forbidden
404 Not Found
405 Method Not Allowed
406 Not Acceptable
407 Proxy Authentication Required
408 Request Timeout
409 Conflict
410 Gone
411 Length Required
412 Precondition Failed
413 Content Too Large
414 URI Too Long
415 Unsupported Media Type
416 Range Not Satisfiable
417 Expectation Failed
421 Misdirected Request
422 Unprocessable Content
423 Locked
424 Failed Dependency
425 Too Early
426 Upgrade Required
428 Precondition Required
429 Too Many Requests
431 Request Header Fields Too Large
451 Unavailable For Legal Reasons
500 Internal Server Error
501 Not Implemented
502 Bad Gateway
503 Service Unavailable
504 Gateway Timeout
505 HTTP Version Not Supported
506 Variant Also Negotiates
507 Insufficient Storage
508 Loop Detected
510 Not Extended
511 Network Authentication Required
`

const leastStatus, mostStatus = 100, 999

// statusLines are the whole lines of every status, made once. It is never written after start.
var statusLines = func() (lines [mostStatus + 1 - leastStatus]string) {
	for status := range lines {
		lines[status] = "HTTP/1.1 " + strconv.Itoa(leastStatus+status) + " \r\n"
	}
	for start, i := 0, 0; i < len(reasons); i++ {
		if reasons[i] == '\n' {
			status := int(reasons[start]-'0')*100 + int(reasons[start+1]-'0')*10 + int(reasons[start+2]-'0')
			lines[status-leastStatus] = "HTTP/1.1 " + reasons[start:i] + "\r\n"
			start = i + 1
		}
	}
	return lines
}()

// dateFormat is IMF-fixdate (RFC 9110 5.6.7) for a time in UTC.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// AppendDate appends a time as the Date field has it.
func AppendDate(dst []byte, now time.Time) []byte { return now.UTC().AppendFormat(dst, dateFormat) }

// Clock makes the text of the Date field once a second. The zero Clock is ready to use. Its methods are safe for concurrent use; whoever
// writes responses shares one.
type Clock struct{ last atomic.Pointer[stamp] }

// stamp is never written once it is in a Clock.
type stamp struct {
	second int64 // Unix time
	text   string
}

// Date returns the value of the Date field at a time. The string is not a view: it stays valid.
func (c *Clock) Date(now time.Time) string {
	second := now.Unix()
	last := c.last.Load()
	if last == nil || last.second != second {
		last = &stamp{second: second, text: string(AppendDate(nil, now))}
		c.last.Store(last)
	}
	return last.text
}
