import java.io.StringReader;
import java.io.StringWriter;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/**
 * The catalogue with pgjdbc. It speaks the extended protocol throughout, splits what it is given
 * into statements, and sends them in one pipeline.
 */
public final class Catalogue {
    private static final String PREPARED = "select ?::int4 * 2 as double";

    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("gssEncMode", "disable");
        // Says at startup what it would otherwise SET after it.
        properties.setProperty("assumeMinServerVersion", "15");
        properties.setProperty("prepareThreshold", "2");
        String authority = System.getenv("TLS_CA");
        properties.setProperty("sslmode", authority == null ? "disable" : "verify-full");
        if (authority != null) {
            properties.setProperty("sslrootcert", authority);
        }
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
                + "/" + System.getenv("PGDATABASE").replace("/", "%2F");
        try (Connection c = DriverManager.getConnection(url, properties)) {
            run(c);
        }
    }

    private static void run(Connection c) throws Exception {
        attempt(c, "select 1 as one");
        attempt(c, "select 1; select 2; select 3", "select 1", " select 2", " select 3");
        parameters(c);
        try (PreparedStatement p = c.prepareStatement(PREPARED)) {
            for (int value = 1; value <= 3; value++) {
                p.setInt(1, value);
                told("select $1::int4 * 2 as double", List.of("" + value), "ok", null, count(p));
            }
        }
        attempt(c, "select * from missing_table");
        try (PreparedStatement p = c.prepareStatement("select 1 / ?::int4 as quotient")) {
            p.setInt(1, 0);
            p.executeQuery();
        } catch (SQLException e) {
            told("select 1 / $1::int4 as quotient", List.of("0"), "error", e.getSQLState(), null);
        }
        transaction(c);
        attempt(c, "create temp table numbers (n int4 primary key, note text)");
        pipeline(c);
        fetchSize(c);
        copy(c);
        attempt(c, "listen news");
        attempt(c, "notify news, 'fresh'");
        PGNotification[] notes = c.unwrap(PGConnection.class).getNotifications(30_000);
        if (notes.length != 1 || notes[0].getPID() != c.unwrap(PGConnection.class).getBackendPID()) {
            throw new AssertionError("one notification from this very backend");
        }
        attempt(c, "select repeat('x', 8000000) as big");
        cancel(c);
    }

    private static void parameters(Connection c) throws SQLException {
        try (PreparedStatement p =
                c.prepareStatement("select ?::int4 + ?::int4 as sum, ?::text as note")) {
            p.setInt(1, 7);
            p.setInt(2, 8);
            p.setString(3, "naïve ✓ 'quoted'");
            told("select $1::int4 + $2::int4 as sum, $3::text as note",
                    List.of("7", "8", "naïve ✓ 'quoted'"), "ok", null, count(p));
        }
    }

    /** Without autocommit the driver sends BEGIN in the pipeline of the first statement. */
    private static void transaction(Connection c) throws SQLException {
        c.setAutoCommit(false);
        told("BEGIN", List.of(), "ok", null, null);
        attempt(c, "select 1 / 0");
        attempt(c, "select 1");
        c.rollback();
        told("ROLLBACK", List.of(), "ok", null, null);
        c.setAutoCommit(true);
    }

    /** A batch goes out under one Sync: the second fails, the rest never runs. */
    private static void pipeline(Connection c) throws SQLException {
        String text = "insert into numbers values ($1, 'pipelined')";
        try (PreparedStatement p = c.prepareStatement(text.replace("$1", "?"))) {
            for (int value : new int[] {1, 1, 2, 3}) {
                p.setInt(1, value);
                p.addBatch();
            }
            try {
                p.executeBatch();
                throw new AssertionError("the batch must fail");
            } catch (BatchUpdateException e) {
                told(text, List.of("1"), "ok", null, null);
                told(text, List.of("1"), "error", e.getSQLState(), null);
                told(text, List.of("2"), "skipped", null, null);
                told(text, List.of("3"), "skipped", null, null);
            }
            for (int value : new int[] {1, 2}) {
                p.setInt(1, value);
                p.addBatch();
            }
            p.executeBatch();
            told(text, List.of("1"), "ok", null, null);
            told(text, List.of("2"), "ok", null, null);
        }
    }

    /** A portal read in pieces of two: one command, however many fetches. */
    private static void fetchSize(Connection c) throws SQLException {
        c.setAutoCommit(false);
        told("BEGIN", List.of(), "ok", null, null);
        String text = "select n from generate_series(1, 5) as n";
        try (Statement s = c.createStatement()) {
            s.setFetchSize(2);
            int rows = 0;
            try (ResultSet result = s.executeQuery(text)) {
                while (result.next()) {
                    rows++;
                }
            }
            told(text, List.of(), "ok", null, rows);
        }
        c.commit();
        told("COMMIT", List.of(), "ok", null, null);
        c.setAutoCommit(true);
    }

    private static void copy(Connection c) throws Exception {
        var copy = c.unwrap(PGConnection.class).getCopyAPI();
        String in = "copy numbers from stdin";
        if (copy.copyIn(in, new StringReader("10\tten\n11\televen\n")) != 2) {
            throw new AssertionError("two rows copied");
        }
        told(in, null, "ok", null, null);
        String out = "copy (select n from numbers order by n) to stdout";
        StringWriter received = new StringWriter();
        copy.copyOut(out, received);
        if (!received.toString().equals("1\n2\n10\n11\n")) {
            throw new AssertionError(received);
        }
        told(out, null, "ok", null, null);
    }

    private static void cancel(Connection c) throws Exception {
        String text = "select pg_sleep(60), 'jdbc'";
        try (Statement s = c.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Process watch = new ProcessBuilder("sh", System.getenv("RUNNING"), text.substring(7))
                            .redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
                    if (watch.waitFor() == 0) {
                        s.cancel();
                    }
                } catch (Exception e) {
                    throw new AssertionError(e);
                }
            });
            canceller.start();
            s.execute(text);
        } catch (SQLException e) {
            told(text, List.of(), "cancelled", e.getSQLState(), null);
        }
    }

    /** Runs a text; `sent` are the statements that the driver makes of it. */
    private static void attempt(Connection c, String text, String... sent) throws SQLException {
        try (Statement s = c.createStatement()) {
            List<Integer> rows = new ArrayList<>();
            boolean more = s.execute(text);
            while (true) {
                Integer count = null;
                if (more) {
                    count = 0;
                    try (ResultSet result = s.getResultSet()) {
                        while (result.next()) {
                            count++;
                        }
                    }
                } else if (s.getUpdateCount() == -1) {
                    break;
                }
                rows.add(count);
                more = s.getMoreResults();
            }
            String[] texts = sent.length == 0 ? new String[] {text} : sent;
            for (int i = 0; i < texts.length; i++) {
                told(texts[i], List.of(), "ok", null, rows.get(i));
            }
        } catch (SQLException e) {
            told(text, List.of(), "error", e.getSQLState(), null);
        }
    }

    private static int count(PreparedStatement p) throws SQLException {
        int rows = 0;
        try (ResultSet result = p.executeQuery()) {
            while (result.next()) {
                rows++;
            }
        }
        return rows;
    }

    private static void told(String text, List<String> params, String status, String code, Integer rows) {
        StringBuilder shown = new StringBuilder();
        for (String p : params == null ? List.<String>of() : params) {
            shown.append(shown.length() == 0 ? "" : ",").append(quote(p));
        }
        System.out.println("{\"text\":" + quote(text) + ",\"params\":"
                + (params == null ? "null" : "[" + shown + "]") + ",\"status\":" + quote(status)
                + ",\"code\":" + (code == null ? "null" : quote(code)) + ",\"rows\":" + rows + "}");
    }

    /** JSON in ASCII, so that the console's encoding does not matter. */
    private static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }
}
