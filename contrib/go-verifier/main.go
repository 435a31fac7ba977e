// Go-verifier checks a log that OnRecord has published, with nothing of OnRecord's: the Go project's own sumdb/note and
// sumdb/tlog do the mathematics.
//
//	go-verifier -log VKEY [-witness VKEY]... [-receipt FILE] URL
//
// It fetches the checkpoint and every entry bundle, verifies the signature, recomputes the root from the entries, and
// checks inclusion and consistency proofs that it makes from the log's tiles. With -witness, the newest cosigned
// checkpoint must have that witness's cosignature. With -receipt, a session's receipt must be proven by the log's key and
// lead to an entry that the log still has. It ends with 1 and says why if anything is not as it should be.
//
// Build it with Debian's golang-go and golang-golang-x-mod-dev:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o go-verifier contrib/go-verifier/main.go
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight   = 8
	tileWidth    = 1 << tileHeight
	answerMax    = 32 << 20
	typeCosigner = 4
)

type vkeys []string

func (v *vkeys) String() string         { return strings.Join(*v, " ") }
func (v *vkeys) Set(value string) error { *v = append(*v, value); return nil }

func main() {
	var witnesses vkeys
	logKey := flag.String("log", "", "the log's public key")
	receipt := flag.String("receipt", "", "a session's receipt")
	flag.Var(&witnesses, "witness", "a witness's public key; may be repeated")
	flag.Parse()
	if *logKey == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(strings.TrimRight(flag.Arg(0), "/"), *logKey, witnesses, *receipt); err != nil {
		fmt.Fprintln(os.Stderr, "go-verifier:", err)
		os.Exit(1)
	}
}

func run(url, logKey string, witnesses []string, receipt string) error {
	verifier, err := note.NewVerifier(logKey)
	if err != nil {
		return fmt.Errorf("the log's key: %w", err)
	}
	// The cosigned checkpoint comes first: it is never newer than the one that is fetched after it.
	var cosigned []byte
	if len(witnesses) > 0 {
		if cosigned, err = get(url + "/cosigned"); err != nil {
			return err
		}
	}
	text, err := get(url + "/checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return fmt.Errorf("the checkpoint's signature: %w", err)
	}
	tree, err := parseCheckpoint(opened.Text, verifier.Name())
	if err != nil {
		return err
	}
	entries, err := readEntries(url, tree.N)
	if err != nil {
		return err
	}
	stored, err := hashAll(entries)
	if err != nil {
		return err
	}
	if root, err := tlog.TreeHash(tree.N, stored); err != nil || root != tree.Hash {
		return fmt.Errorf("the entries lead to the root %v, and the checkpoint says %v (%v)", root, tree.Hash, err)
	}
	tiles := tlog.TileHashReader(tree, &tileReader{url: url})
	if err := checkProofs(tree, tiles, stored, entries); err != nil {
		return err
	}
	if err := checkCosignatures(cosigned, verifier, witnesses, stored); err != nil {
		return err
	}
	if receipt != "" {
		if err := checkReceipt(receipt, verifier, entries); err != nil {
			return fmt.Errorf("the receipt: %w", err)
		}
	}
	fmt.Printf("ok: %d entries, root %v, %d witnesses\n", tree.N, tree.Hash, len(witnesses))
	return nil
}

// checkProofs makes proofs from the tiles that the log serves, and checks them against what the entries say.
func checkProofs(tree tlog.Tree, tiles, stored tlog.HashReader, entries [][]byte) error {
	for _, n := range []int64{0, tree.N / 3, tree.N / 2, tree.N - 1} {
		proof, err := tlog.ProveRecord(tree.N, n, tiles)
		if err != nil {
			return fmt.Errorf("an inclusion proof of entry %d: %w", n, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, n, tlog.RecordHash(entries[n])); err != nil {
			return fmt.Errorf("the inclusion of entry %d: %w", n, err)
		}
	}
	for _, old := range []int64{1, tree.N / 3, tree.N / 2, tree.N - 1, tree.N} {
		if old < 1 {
			continue
		}
		before, err := tlog.TreeHash(old, stored)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(tree.N, old, tiles)
		if err != nil {
			return fmt.Errorf("a consistency proof from size %d: %w", old, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old, before); err != nil {
			return fmt.Errorf("the consistency with size %d: %w", old, err)
		}
	}
	return nil
}

// checkCosignatures wants a cosignature of every witness on the newest cosigned checkpoint, which must be one of this
// very log.
func checkCosignatures(text []byte, log note.Verifier, witnesses []string, stored tlog.HashReader) error {
	if len(witnesses) == 0 {
		return nil
	}
	known := []note.Verifier{log}
	for _, vkey := range witnesses {
		cosigner, err := newCosigner(vkey)
		if err != nil {
			return fmt.Errorf("a witness's key: %w", err)
		}
		known = append(known, cosigner)
	}
	opened, err := note.Open(text, note.VerifierList(known...))
	if err != nil {
		return fmt.Errorf("the cosigned checkpoint: %w", err)
	}
	for _, wanted := range known {
		found := false
		for _, sig := range opened.Sigs {
			found = found || (sig.Name == wanted.Name() && sig.Hash == wanted.KeyHash())
		}
		if !found {
			return fmt.Errorf("%s has not signed the cosigned checkpoint", wanted.Name())
		}
	}
	tree, err := parseCheckpoint(opened.Text, log.Name())
	if err != nil {
		return err
	}
	if root, err := tlog.TreeHash(tree.N, stored); err != nil || root != tree.Hash {
		return fmt.Errorf("the witnesses have cosigned another tree of %d entries (%v)", tree.N, err)
	}
	return nil
}

// checkReceipt checks a C2SP tlog-proof whose extra data is the entry itself.
func checkReceipt(file string, log note.Verifier, entries [][]byte) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, checkpoint, found := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("it is no proof")
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	opened, err := note.Open([]byte(checkpoint), note.VerifierList(log))
	if err != nil {
		return err
	}
	tree, err := parseCheckpoint(opened.Text, log.Name())
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return err
	}
	if index >= int64(len(entries)) || !bytes.Equal(entries[index], entry) {
		return fmt.Errorf("entry %d is not in the log any more", index)
	}
	return nil
}

func parseCheckpoint(text, origin string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != origin {
		return tlog.Tree{}, fmt.Errorf("this is no checkpoint of %s: %q", origin, text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 {
		return tlog.Tree{}, fmt.Errorf("%q is no size", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// readEntries fetches every bundle of a log of this size.
func readEntries(url string, size int64) ([][]byte, error) {
	var entries [][]byte
	for n := int64(0); n*tileWidth < size; n++ {
		width := size - n*tileWidth
		if width > tileWidth {
			width = tileWidth
		}
		path := fmt.Sprintf("tile/entries/%s", place(n, int(width)))
		bundle, err := get(url + "/" + path)
		if err != nil {
			return nil, err
		}
		count := int64(0)
		for len(bundle) >= 2 {
			length := int(binary.BigEndian.Uint16(bundle))
			if len(bundle) < 2+length {
				break
			}
			entries = append(entries, bundle[2:2+length])
			bundle = bundle[2+length:]
			count++
		}
		if len(bundle) != 0 || count != width {
			return nil, fmt.Errorf("%s has %d entries and %d bytes more, and should have %d", path, count, len(bundle), width)
		}
	}
	return entries, nil
}

type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, 0, len(indexes))
	for _, index := range indexes {
		if index < 0 || index >= int64(len(m)) {
			return nil, fmt.Errorf("hash %d is beyond the log", index)
		}
		hashes = append(hashes, m[index])
	}
	return hashes, nil
}

func hashAll(entries [][]byte) (tlog.HashReader, error) {
	var stored memory
	for n, entry := range entries {
		hashes, err := tlog.StoredHashes(int64(n), entry, stored)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	return stored, nil
}

// tileReader fetches tiles by the paths of C2SP tlog-tiles, which differ from those of the Go checksum database.
type tileReader struct{ url string }

func (r *tileReader) Height() int                     { return tileHeight }
func (r *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		bytes, err := get(fmt.Sprintf("%s/tile/%d/%s", r.url, tile.L, place(tile.N, tile.W)))
		if err != nil {
			return nil, err
		}
		all = append(all, bytes)
	}
	return all, nil
}

// place writes a tile's number as C2SP does: x001/x234/067, and .p/W behind it for a partial one.
func place(n int64, width int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width != tileWidth {
		path = fmt.Sprintf("%s.p/%d", path, width)
	}
	return path
}

var client = &http.Client{Timeout: 30 * time.Second}

func get(url string) ([]byte, error) {
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerMax+1))
	if err == nil && len(body) > answerMax {
		err = errors.New("the answer is too long")
	}
	return body, err
}

// cosigner verifies cosignatures of C2SP tlog-cosignature, type 0x04: eight bytes of time, and an Ed25519 signature over
// "cosignature/v1", that time and the checkpoint.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not of the form name+id+key")
	}
	id, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, err
	}
	typed, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(typed) != 1+ed25519.PublicKeySize || typed[0] != typeCosigner {
		return nil, errors.New("not a key for cosignatures")
	}
	hash := sha256.Sum256(append([]byte(parts[0]+"\n"), typed...))
	if binary.BigEndian.Uint32(hash[:]) != uint32(id) {
		return nil, errors.New("the id is not that of the key")
	}
	return &cosigner{name: parts[0], hash: uint32(id), key: ed25519.PublicKey(typed[1:])}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}
