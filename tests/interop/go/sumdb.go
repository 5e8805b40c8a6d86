// Sumdb checks a served log with the packages behind Go's checksum database: golang.org/x/mod/sumdb/note and .../tlog.
//
//	sumdb URL VKEY [SIZE|SUBMISSION...]
//
// It opens the checkpoint, hashes the tree from the tiles, proves that each entry of the served bundles is in it at its
// place, and that earlier heads are prefixes of later ones: the signed heads of the SIZEs by proofs made from the tiles,
// those in SUBMISSIONs (files, as sent to a witness) by the proofs in them. It prints what it has proven, or says what is
// wrong and exits with status 1. Here is only what the packages do not know: where C2SP tlog-tiles puts its files, how
// bundles and submissions are laid out, and that a checkpoint has three lines.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// server is the log at this address, a tlog.TileReader.
type server struct {
	url   string
	tiles map[tlog.Tile][]byte
}

func (s *server) Height() int { return height }

func (s *server) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		s.tiles[tile] = data[i]
	}
}

func (s *server) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		if data[i] = s.tiles[tile]; data[i] == nil {
			data[i] = s.get(path(tile))
		}
	}
	return data, nil
}

// path is where C2SP serves a tile: the height is not in it, and raw records are entry bundles.
func path(tile tlog.Tile) string {
	p := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
	return "tile/" + strings.Replace(p, "data/", "entries/", 1)
}

func (s *server) get(path string) []byte {
	response, err := http.Get(s.url + "/" + path)
	check(path, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(path, err)
	if response.StatusCode != http.StatusOK {
		fail("%s: %s", path, response.Status)
	}
	return body
}

// open verifies a signed checkpoint.
func open(path string, raw []byte, key note.Verifier) tlog.Tree {
	signed, err := note.Open(raw, note.VerifierList(key))
	check(path, err)
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != key.Name() {
		fail("%s: not a checkpoint of %s", path, key.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(path, err)
	root, err := tlog.ParseHash(lines[2])
	check(path, err)
	return tlog.Tree{N: size, Hash: root}
}

// head opens the signed head of a size.
func (s *server) head(size int64, key note.Verifier) tlog.Tree {
	path := fmt.Sprintf("checkpoint/%d", size)
	return open(path, s.get(path), key)
}

// submission checks what was sent to a witness: "old" and a size, a proof, an empty line, a checkpoint.
func (s *server) submission(file string, key note.Verifier) {
	raw, err := os.ReadFile(file)
	check(file, err)
	parts := strings.SplitN(string(raw), "\n\n", 2)
	if len(parts) != 2 {
		fail("%s: no checkpoint", file)
	}
	lines := strings.Split(parts[0], "\n")
	size, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	check(file, err)
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		check(file, err)
		proof = append(proof, hash)
	}
	old, tree := s.head(size, key), open(file, []byte(parts[1]), key)
	check(file, tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash))
}

// entries reads the bundle of width w at n.
func (s *server) entries(n int64, w int) [][]byte {
	at := path(tlog.Tile{H: height, L: -1, N: n, W: w})
	var found [][]byte
	for rest := s.get(at); len(rest) > 0; {
		if len(rest) < 2 || len(rest) < 2+int(rest[0])<<8+int(rest[1]) {
			fail("%s: truncated", at)
		}
		end := 2 + int(rest[0])<<8 + int(rest[1])
		found, rest = append(found, rest[2:end]), rest[end:]
	}
	if len(found) != w {
		fail("%s: %d entries", at, len(found))
	}
	return found
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: sumdb URL VKEY [SIZE|SUBMISSION...]")
	}
	log := &server{os.Args[1], map[tlog.Tile][]byte{}}
	key, err := note.NewVerifier(os.Args[2])
	check("key", err)
	tree := open("checkpoint", log.get("checkpoint"), key)
	// The reader proves tiles against the tree, but x/mod 0.7 leaves out full tiles that it meets among the first few. So
	// nothing below relies on it: each record and each head is checked against the tree by itself.
	reader := tlog.TileHashReader(tree, log)

	root, err := tlog.TreeHash(tree.N, reader)
	check("tiles", err)
	if root != tree.Hash {
		fail("the tiles have root %v, the checkpoint %v", root, tree.Hash)
	}
	for first := int64(0); first < tree.N; first += 1 << height {
		width := tree.N - first
		if width > 1<<height {
			width = 1 << height
		}
		for i, entry := range log.entries(first>>height, int(width)) {
			index := first + int64(i)
			proof, err := tlog.ProveRecord(tree.N, index, reader)
			check("inclusion", err)
			check(fmt.Sprintf("entry %d", index), tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)))
		}
	}
	for _, given := range os.Args[3:] {
		size, err := strconv.ParseInt(given, 10, 64)
		if err != nil {
			log.submission(given, key)
			continue
		}
		old := log.head(size, key)
		proof, err := tlog.ProveTree(tree.N, old.N, reader)
		check("consistency", err)
		check("head of size "+given, tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash))
	}
	fmt.Printf("%s: %d entries, %d earlier heads, %d tiles\n", key.Name(), tree.N, len(os.Args[3:]), len(log.tiles))
}

func check(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
