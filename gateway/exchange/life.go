package exchange

import (
	"context"
	"sync"
	"time"
)

// Interrupter is something that waits and can be told to stop: a socket with a Read under way, a stream, a Life that depends on
// another. Interrupt must not wait itself; it is called at most once for each Attach, with the Life locked.
type Interrupter interface{ Interrupt() }

// Life is how long an exchange, or one attempt within it, lasts. It is a context.Context that is used again for the next exchange, so
// that an exchange on the fast path allocates none: the Done channel is made only when somebody asks for it.
//
// Whoever waits on a socket or stream for an exchange attaches it, and End interrupts it:
//
//	if !life.Attach(conn) { return life.Fault() }   // already over
//	n, err := conn.Read(p)                          // End, from any goroutine, calls conn.Interrupt
//	if !life.Detach() { return life.Fault() }       // it ended meanwhile; conn was interrupted and cannot be used again
//
// The zero Life has begun. Its methods are safe for concurrent use; Reset is for its owner alone.
type Life struct {
	mu       sync.Mutex
	over     bool          // guarded by mu
	cause    *Fault        // guarded by mu
	done     chan struct{} // made when asked for; guarded by mu
	attached Interrupter   // guarded by mu
	parent   *Life         // set by Begin, read by Interrupt under the parent's lock
}

var _ context.Context = (*Life)(nil)

// End ends the life, because of a Fault or, with nil, because its work is done. It interrupts what is attached. The first End counts.
func (l *Life) End(cause *Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.over, l.cause = true, cause
	if l.done != nil {
		close(l.done)
	}
	if l.attached != nil {
		l.attached.Interrupt()
		l.attached = nil
	}
}

// Attach names what End interrupts. There is one at a time. It returns false when the life is over already; nothing is interrupted then.
func (l *Life) Attach(i Interrupter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.attached = i
	return true
}

// Detach ends what Attach began. After it Interrupt is not called any more. It returns false when the life is over: what was attached was
// interrupted.
func (l *Life) Detach() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attached = nil
	return !l.over
}

// Begin makes the life part of another: it ends, with the same cause, at the latest when its parent does. Leave takes it off again. It
// takes the parent's one place for what is attached.
func (l *Life) Begin(parent *Life) {
	l.parent = parent
	if !parent.Attach(l) {
		l.End(parent.Fault())
	}
}

// Leave ends the life, its work done, and takes it off its parent. It returns false when the life had been ended otherwise.
func (l *Life) Leave() bool {
	if l.parent != nil {
		l.parent.Detach()
		l.parent = nil
	}
	l.mu.Lock()
	ended := l.over
	l.mu.Unlock()
	l.End(nil)
	return !ended
}

// Interrupt ends the life with its parent's cause; the parent calls it, locked.
func (l *Life) Interrupt() { l.End(l.parent.cause) }

// Fault returns why the life ended; nil while it lasts, and when its work was done.
func (l *Life) Fault() *Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Over reports whether the life ended.
func (l *Life) Over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// Done implements context.Context.
func (l *Life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.over {
			close(l.done)
		}
	}
	return l.done
}

// Err implements context.Context: context.Canceled once the life is over. Fault says why.
func (l *Life) Err() error {
	if l.Over() {
		return context.Canceled
	}
	return nil
}

// Deadline implements context.Context; a life has none of its own.
func (*Life) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context; a life carries none.
func (*Life) Value(any) any { return nil }

// Retire keeps Fresh from using the life again: somebody may still end it late, such as a timer that could not be stopped.
func (l *Life) Retire() { _ = l.Done() }

// Fresh returns a life that begins now: this one used again, or a new one where somebody may still hold this one's Done channel.
// l may be nil. Nothing may use l any more.
func (l *Life) Fresh() *Life {
	if l == nil {
		return &Life{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done != nil {
		return &Life{}
	}
	l.over, l.cause, l.attached, l.parent = false, nil, nil, nil
	return l
}
