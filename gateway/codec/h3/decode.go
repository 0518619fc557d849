package h3

import (
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A field section (RFC 9204 4.5) begins with two integers about the dynamic table, which the gateway does not have, and goes on with field
// lines:
//
//	1T index(6+)                                     a whole line of the static table (T)
//	01NT index(4+)  H length(7+) value               a name of the static table (T) and a value
//	001NH length(3+) name  H length(7+) value        a name and a value
//
// H tells that a string is in the Huffman code. An integer of n+ bits that does not fit goes on in further bytes (RFC 7541 5.1).
// Everything that refers to the dynamic table is a breach that ends the connection, as it does with every decoder.

// lineDecoder reads the field lines of a section, one by one.
type lineDecoder struct {
	rest  []byte // what is not read yet; strings that are not compressed are views into it
	arena *section.Arena
	bad   string // what ended the reading
}

// known says what of a line needs no check because it is the static table's.
type known uint8

const (
	knownNothing known = iota
	knownName
	knownLine
)

// begin reads what stands before the lines.
func (d *lineDecoder) begin(block []byte, arena *section.Arena) {
	*d = lineDecoder{rest: block, arena: arena}
	required, ok := d.integer(8)
	if !ok {
		return
	}
	if required != 0 {
		d.fail("it requires the dynamic table")
		return
	}
	negative := len(d.rest) > 0 && d.rest[0]&0x80 != 0
	if _, ok := d.integer(7); ok && negative {
		d.fail("its base is negative") // RFC 9204 4.5.1.2
	}
}

// more reports whether another line follows; err returns why not, nil at the end.
func (d *lineDecoder) more() bool { return len(d.rest) > 0 }

func (d *lineDecoder) err() error {
	if d.bad == "" {
		return nil
	}
	return &ConnError{DecompressionFailed, "a field section cannot be decoded: " + d.bad}
}

func (d *lineDecoder) fail(reason string) {
	if d.bad == "" {
		d.bad = reason
	}
	d.rest = nil
}

// next reads a line. After it err must be asked.
func (d *lineDecoder) next(f *section.Known) known {
	switch b := d.rest[0]; {
	case b&0x80 != 0:
		if b&0x40 == 0 {
			d.fail("it refers to the dynamic table")
		} else if place, ok := d.place(6); ok {
			*f = static[place]
		}
		return knownLine
	case b&0x40 != 0:
		if b&0x10 == 0 {
			d.fail("it refers to the dynamic table")
		} else if place, ok := d.place(4); ok {
			f.Name, f.ID = static[place].Name, static[place].ID
			f.Value = d.text(7)
		}
		return knownName
	case b&0x20 != 0:
		f.Name = d.text(3)
		f.ID = exchange.IDOf(f.Name)
		f.Value = d.text(7)
	default:
		d.fail("it refers to the dynamic table")
	}
	return knownNothing
}

// place reads a reference to the static table.
func (d *lineDecoder) place(prefix uint) (uint64, bool) {
	place, ok := d.integer(prefix)
	if ok && place >= uint64(len(static)) {
		d.fail("it refers to an entry that the static table does not have")
		return 0, false
	}
	return place, ok
}

// text reads a string whose length has a prefix of that many bits, behind the bit that tells of the Huffman code.
func (d *lineDecoder) text(prefix uint) string {
	if len(d.rest) == 0 {
		d.fail("it ends within a line")
		return ""
	}
	packed := d.rest[0]>>prefix&1 != 0
	length, ok := d.integer(prefix)
	if !ok {
		return ""
	}
	if length > uint64(len(d.rest)) {
		d.fail("a string is longer than the section")
		return ""
	}
	raw := d.rest[:length]
	d.rest = d.rest[length:]
	switch {
	case length == 0:
		return ""
	case !packed:
		return unsafe.String(&raw[0], len(raw))
	}
	room := d.arena.Room(section.HuffmanRoom(len(raw)))
	plain, ok := section.AppendHuffman(room, raw)
	if !ok {
		d.fail("a string breaks the Huffman code")
		return ""
	}
	return d.arena.Take(plain)
}

// maxInteger bounds the integers in a section; what they count is far below it.
const maxInteger = 1 << 32

// integer reads one with a prefix of that many bits.
func (d *lineDecoder) integer(prefix uint) (uint64, bool) {
	if len(d.rest) == 0 {
		d.fail("it ends within an integer")
		return 0, false
	}
	most := uint64(1)<<prefix - 1
	v := uint64(d.rest[0]) & most
	d.rest = d.rest[1:]
	if v < most {
		return v, true
	}
	for shift := uint(0); ; shift += 7 {
		if len(d.rest) == 0 {
			d.fail("it ends within an integer")
			return 0, false
		}
		b := d.rest[0]
		d.rest = d.rest[1:]
		if shift > 28 {
			d.fail("an integer is too large")
			return 0, false
		}
		v += uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	if v > maxInteger {
		d.fail("an integer is too large")
		return 0, false
	}
	return v, true
}

// Decoder turns field sections into heads and trailers. Its memory is used again for the next exchange. The zero Decoder is ready.
type Decoder struct {
	lines    lineDecoder
	arena    section.Arena
	request  section.Request
	trailers section.Trailers
}

// Request decodes a request's section. The head's strings are views into block and into the decoder, valid until Reset. The error is a
// *ConnError, section.ErrTooLarge, after which the rest was not looked at, or section.Malformed. length is the content-length, -1 without.
func (d *Decoder) Request(block []byte, head *exchange.Head, limits section.Limits) (length int64, err error) {
	d.request.Begin(head, limits)
	if err := d.each(block, &d.request); err != nil {
		return -1, err
	}
	return d.request.Finish()
}

// Trailers decodes a section of trailers as Request does one of a request.
func (d *Decoder) Trailers(block []byte, fields *exchange.Fields, limits section.Limits) error {
	d.trailers.Begin(fields, limits)
	if err := d.each(block, &d.trailers); err != nil {
		return err
	}
	return d.trailers.Finish()
}

// Reset makes the memory free. No view may be used any more.
func (d *Decoder) Reset() { d.arena.Reset() }

// builder is section.Request or section.Trailers.
type builder interface {
	Add(name, value string) error
	AddKnown(f section.Known) error
}

func (d *Decoder) each(block []byte, to builder) error {
	var f section.Known
	var first error
	for d.lines.begin(block, &d.arena); d.lines.more(); {
		trust := d.lines.next(&f)
		if d.lines.bad != "" {
			break
		}
		var err error
		if trust == knownLine || trust == knownName && section.ValidValue(f.Value) {
			err = to.AddKnown(f)
		} else {
			err = to.Add(f.Name, f.Value)
		}
		if err == section.ErrTooLarge {
			return err
		}
		if first == nil {
			first = err
		}
	}
	// What cannot be decoded is worse than what is malformed.
	if err := d.lines.err(); err != nil {
		return err
	}
	return first
}
