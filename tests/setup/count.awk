# Reads what `cargo test` prints, and says how many tests passed and failed in all. Fails if any failed, if any was
# ignored (a test that does not run proves nothing), or if none ran.
# "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s"
{ gsub(/\033\[[0-9;]*m/, "") }
/^test result: / {
    for (i = 2; i <= NF; i++) {
        if ($i == "passed;") passed += $(i - 1)
        if ($i == "failed;") failed += $(i - 1)
        if ($i == "ignored;") ignored += $(i - 1)
    }
}
/^test .* \.\.\. ignored/ { names = names "\n    " $2 }
# A test program that was killed, or that does not compile, has no result of its own.
/^error: test failed, to rerun pass/ || /^error: could not compile/ { programs++ }
/^error: [0-9]+ targets? failed:/ { programs = $2 }
END {
    if (programs && !failed) failed = programs
    if (ignored) printf "%d tests were not run, which counts as failure:%s\n", ignored, names
    printf "%d passed, %d failed\n", passed, failed + ignored
    exit (failed + ignored > 0 || passed == 0)
}
