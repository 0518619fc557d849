package h2

import (
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Decoder decompresses the field blocks that one side of a connection sends (RFC 7541) and checks them as messages. Every block must go
// through it in the order received, also those of streams that are gone (Skip), because each may change the table that the next ones
// refer to. A message that is refused leaves the table in step.
//
// Bytes are bounded while decoding goes on: strings of a block over its limits are not kept, nor decoded where no table needs them. In
// steady state it allocates nothing: strings go into the stream's Arena. A Decoder belongs to the goroutine that reads.
type Decoder struct {
	table table
	most  uint32 // the largest table, as our setting says

	// The section under way.
	kind     kind
	request  section.Request
	response section.Response
	trailers section.Trailers
	bad      error
	arena    *section.Arena
	spare    section.Arena // for strings that only the table needs
	size     int
}

// kind says what a block is.
type kind uint8

const (
	skipped kind = iota
	ofRequest
	ofResponse
	ofTrailers
)

// Init makes the decoder ready for a new connection. tableSize is the SETTINGS_HEADER_TABLE_SIZE that the peer was told, TableSize when it
// was told none.
func (d *Decoder) Init(tableSize uint32) {
	*d = Decoder{most: tableSize}
	d.table.limit = min(tableSize, TableSize)
}

// Request decodes a request's block into head, whose list of fields is used again, and returns its content-length, -1 without. Strings lie in
// arena. The error is a *ConnError of CompressionError, or of the message alone: section.ErrTooLarge or a section.Malformed.
func (d *Decoder) Request(block []byte, arena *section.Arena, head *exchange.Head, limits section.Limits) (length int64, err error) {
	d.request.Begin(head, limits)
	if err := d.decode(ofRequest, block, arena); err != nil {
		return -1, err
	}
	length, err = d.request.Finish()
	d.size = d.request.Size()
	return length, err
}

// Response decodes a response's block, also an interim one's, as Request does.
func (d *Decoder) Response(block []byte, arena *section.Arena, response *exchange.Response, limits section.Limits) (length int64, err error) {
	d.response.Begin(response, limits)
	if err := d.decode(ofResponse, block, arena); err != nil {
		return -1, err
	}
	length, err = d.response.Finish()
	d.size = d.response.Size()
	return length, err
}

// Trailers decodes a block of trailers as Request does.
func (d *Decoder) Trailers(block []byte, arena *section.Arena, fields *exchange.Fields, limits section.Limits) error {
	d.trailers.Begin(fields, limits)
	if err := d.decode(ofTrailers, block, arena); err != nil {
		return err
	}
	d.size = d.trailers.Size()
	return d.trailers.Finish()
}

// Skip decodes a block for what it does to the table alone. The error is a *ConnError.
func (d *Decoder) Skip(block []byte) error { return d.decode(skipped, block, &d.spare) }

// Size returns how many bytes, as section.Limits counts them, the last message's section took.
func (d *Decoder) Size() int { return d.size }

// Blocks (RFC 7541 6) are a sequence of
//
//	1xxxxxxx                 an indexed field
//	01xxxxxx [name] value    a literal that becomes the newest entry of the table; xxxxxx is the index of its name, 0: the name follows
//	001xxxxx                 the table's new limit, before all fields only (4.2)
//	000?xxxx [name] value    a literal that does not; ? forbids hops behind to make an entry of it, which the gateway never does
//
// where each xxx is an integer (5.1).
func (d *Decoder) decode(k kind, block []byte, arena *section.Arena) error {
	d.kind, d.arena, d.bad, d.size = k, arena, nil, 0
	defer d.drop()
	started := false
	for len(block) > 0 {
		c := block[0]
		var err error
		switch {
		case c&0x80 != 0:
			block, err = d.indexed(block)
		case c&0x40 != 0:
			block, err = d.literal(block, 6, true)
		case c&0x20 != 0:
			if started {
				return compression("the table's size changes behind a field")
			}
			block, err = d.resize(block)
			if err != nil {
				return err
			}
			continue
		default:
			block, err = d.literal(block, 4, false)
		}
		if err != nil {
			return err
		}
		started = true
	}
	return nil
}

// drop forgets what the section under way held.
func (d *Decoder) drop() {
	d.arena = nil
	d.spare.Reset()
}

func compression(reason string) error { return &ConnError{CompressionError, reason} }

// integer reads an integer with a prefix of n bits (RFC 7541 5.1). No integer of the format needs more than 4 bytes behind the prefix.
func integer(p []byte, n uint) (value uint64, rest []byte, err error) {
	mask := uint64(1)<<n - 1
	value = uint64(p[0]) & mask
	if value < mask {
		return value, p[1:], nil
	}
	for i := 1; i < len(p) && i <= 4; i++ {
		value += uint64(p[i]&0x7f) << (7 * (i - 1))
		if p[i]&0x80 == 0 {
			return value, p[i+1:], nil
		}
	}
	return 0, nil, compression("an integer is too large or cut off")
}

func (d *Decoder) resize(block []byte) ([]byte, error) {
	n, rest, err := integer(block, 5)
	if err != nil {
		return nil, err
	}
	if n > uint64(d.most) {
		return nil, compression("the table becomes larger than the setting allows")
	}
	d.table.setLimit(uint32(n))
	return rest, nil
}

// wanted says whether strings of the section are of use to anybody but the table.
func (d *Decoder) wanted() bool { return d.kind != skipped && d.bad == nil }

func (d *Decoder) indexed(block []byte) ([]byte, error) {
	i, rest, err := integer(block, 7)
	switch {
	case err != nil:
		return nil, err
	case i == 0:
		return nil, compression("the index is 0")
	case i < uint64(len(staticTable)):
		d.emit(staticTable[i], true)
		return rest, nil
	}
	e := d.table.get(i - uint64(len(staticTable)))
	if e == nil {
		return nil, compression("the index is of no field in the table")
	}
	if d.wanted() {
		d.emit(exchange.Field{Name: d.table.nameOf(e, d.arena), Value: d.table.valueOf(e, d.arena), ID: e.id}, e.valid)
	}
	return rest, nil
}

// literal reads a field whose value, and perhaps name, stands in the block. add makes it an entry of the table.
func (d *Decoder) literal(block []byte, prefix uint, add bool) ([]byte, error) {
	i, block, err := integer(block, prefix)
	if err != nil {
		return nil, err
	}
	wanted := d.wanted()
	arena := d.arena
	if !wanted {
		d.spare.Reset()
		arena = &d.spare
	}
	need := wanted || add
	var f exchange.Field
	constant, valid := true, true
	switch {
	case i == 0:
		if f.Name, block, err = d.text(block, arena, need); err != nil {
			return nil, err
		}
		if f.ID = exchange.IDOf(f.Name); f.ID != exchange.Unknown && f.Name == f.ID.String() {
			f.Name = f.ID.String()
		} else {
			constant = false
			valid = wellFormed(f.Name)
		}
	case i < uint64(len(staticTable)):
		f.Name, f.ID = staticTable[i].Name, staticTable[i].ID
	default:
		e := d.table.get(i - uint64(len(staticTable)))
		if e == nil {
			return nil, compression("the index is of no field in the table")
		}
		f.Name, f.ID = d.table.nameOf(e, arena), e.id
		constant = e.known != ""
		valid = constant || wellFormed(f.Name)
	}
	if f.Value, block, err = d.text(block, arena, need); err != nil {
		return nil, err
	}
	if !need {
		return block, nil
	}
	valid = valid && section.ValidValue(f.Value)
	if add {
		d.table.add(f, constant, valid)
	}
	d.emit(f, valid)
	return block, nil
}

// wellFormed checks a name, which may be a pseudo-field's.
func wellFormed(name string) bool {
	if name != "" && name[0] == ':' {
		name = name[1:]
	}
	return section.ValidName(name)
}

// text reads a string (RFC 7541 5.2) into the arena. With keep false it is only skipped.
func (d *Decoder) text(block []byte, arena *section.Arena, keep bool) (string, []byte, error) {
	if len(block) == 0 {
		return "", nil, compression("the block ends within a field")
	}
	coded := block[0]&0x80 != 0
	n, rest, err := integer(block, 7)
	if err != nil {
		return "", nil, err
	}
	if n > uint64(len(rest)) {
		return "", nil, compression("the block ends within a string")
	}
	raw, rest := rest[:n], rest[n:]
	switch {
	case !keep:
		return "", rest, nil
	case !coded:
		return arena.Copy(raw), rest, nil
	}
	out, ok := section.AppendHuffman(arena.Room(section.HuffmanRoom(len(raw))), raw)
	if !ok {
		return "", nil, compression("a string breaks the Huffman code")
	}
	return arena.Take(out), rest, nil
}

// emit hands a field on to the message.
func (d *Decoder) emit(f exchange.Field, valid bool) {
	if !d.wanted() {
		return
	}
	switch {
	case d.kind == ofRequest && valid:
		d.bad = d.request.AddKnown(f)
	case d.kind == ofRequest:
		d.bad = d.request.Add(f.Name, f.Value)
	case d.kind == ofResponse && valid:
		d.bad = d.response.AddKnown(f)
	case d.kind == ofResponse:
		d.bad = d.response.Add(f.Name, f.Value)
	case valid:
		d.bad = d.trailers.AddKnown(f)
	default:
		d.bad = d.trailers.Add(f.Name, f.Value)
	}
}
