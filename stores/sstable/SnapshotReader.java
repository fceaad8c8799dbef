import java.io.BufferedReader;
import java.io.DataOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.cassandra.config.DatabaseDescriptor;
import org.apache.cassandra.db.DataRange;
import org.apache.cassandra.db.RegularAndStaticColumns;
import org.apache.cassandra.db.filter.ColumnFilter;
import org.apache.cassandra.db.marshal.AbstractType;
import org.apache.cassandra.db.marshal.CompositeType;
import org.apache.cassandra.db.marshal.DoubleType;
import org.apache.cassandra.db.marshal.TimestampType;
import org.apache.cassandra.db.marshal.UTF8Type;
import org.apache.cassandra.db.partitions.PartitionIterator;
import org.apache.cassandra.db.partitions.UnfilteredPartitionIterator;
import org.apache.cassandra.db.partitions.UnfilteredPartitionIterators;
import org.apache.cassandra.db.rows.Cell;
import org.apache.cassandra.db.rows.Row;
import org.apache.cassandra.db.rows.RowIterator;
import org.apache.cassandra.db.transform.FilteredPartitions;
import org.apache.cassandra.db.transform.Transformation;
import org.apache.cassandra.dht.IPartitioner;
import org.apache.cassandra.dht.Murmur3Partitioner;
import org.apache.cassandra.dht.Range;
import org.apache.cassandra.dht.Token;
import org.apache.cassandra.io.sstable.Descriptor;
import org.apache.cassandra.io.sstable.SSTableReadsListener;
import org.apache.cassandra.io.sstable.format.SSTableReader;
import org.apache.cassandra.io.util.File;
import org.apache.cassandra.schema.ColumnMetadata;
import org.apache.cassandra.schema.TableMetadata;
import org.apache.cassandra.schema.TableMetadataRef;
import org.apache.cassandra.tools.Util;

/**
 * Answers, frame by frame on stdout, what a cluster would have answered from the given SSTables.
 *
 * The arguments are -Data.db files, and NAME=UNTIL_US for a column that was dropped, with a plus
 * behind it when it was added again. Each line on stdin is a request: {@code describe}, or
 * {@code read START END NOW_S GC_BEFORE_S} for the rows of the token range (START, END] that live at
 * NOW_S, where nobody knows of deletions before GC_BEFORE_S any more.
 * The process ends when stdin does, whatever it is about: then nobody is left to read from it.
 * A frame is a letter, the length of its payload (4 bytes, big-endian) and MessagePack: D files,
 * R rows, E the end of a request with its number of rows, W one line that says which file is
 * wrong, X one that says what failed.
 */
public class SnapshotReader
{
    private static final int FRAME_BYTES = 64 << 10;
    private static final String[] COLUMNS = { "last_attempted_on", "total_score", "total_max_score" };
    private static final AbstractType<?>[] TYPES =
        { TimestampType.instance, DoubleType.instance, DoubleType.instance };

    private final List<SSTableReader> sstables = new ArrayList<>();
    private final BlockingQueue<String> requests = new LinkedBlockingQueue<>();
    private final DataOutputStream out;
    private TableMetadata table;
    private boolean byCourse;

    SnapshotReader(DataOutputStream out)
    {
        this.out = out;
    }

    public static void main(String[] args) throws IOException
    {
        // Whatever Cassandra prints must not come between two frames.
        DataOutputStream out = new DataOutputStream(
            new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 18));
        System.setOut(System.err);
        SnapshotReader reader = new SnapshotReader(out);
        Thread listener = new Thread(reader::listen, "requests");
        listener.setDaemon(true);
        listener.start();
        char letter = 'X';
        try
        {
            DatabaseDescriptor.toolInitialization(false);
            letter = 'W';
            reader.open(args);
            letter = 'X';
            reader.serve();
        }
        catch (Throwable error)
        {
            reader.frame(error instanceof OutOfMemoryError ? 'X' : letter, new Pack().text(reason(error)));
            out.flush();
        }
        finally
        {
            // Cassandra's threads would keep the process alive.
            Runtime.getRuntime().halt(1);
        }
    }

    private void listen()
    {
        try
        {
            new BufferedReader(new InputStreamReader(System.in)).lines().forEach(requests::add);
        }
        finally
        {
            Runtime.getRuntime().halt(0);
        }
    }

    private static String reason(Throwable error)
    {
        Throwable cause = error;
        while (cause.getCause() != null)
            cause = cause.getCause();
        if (cause instanceof Wrong)
            return cause.getMessage();
        String words = cause.getMessage() == null ? "" : ": " + cause.getMessage();
        return (cause.getClass().getSimpleName() + words).replaceAll("\\s+", " ");
    }

    private void open(String[] words)
    {
        List<Descriptor> descriptors = new ArrayList<>();
        List<String> dropped = new ArrayList<>();
        for (String word : words)
            if (word.endsWith("-Data.db"))
                descriptors.add(Descriptor.fromFileWithComponent(new File(word), false).left);
            else
                dropped.add(word);
        List<TableMetadata> headers = new ArrayList<>();
        for (Descriptor descriptor : descriptors)
            headers.add(of(descriptor, () -> header(descriptor)));
        table = mergedMetadata(descriptors, headers, dropped);
        TableMetadataRef ref = TableMetadataRef.forOfflineTools(table);
        for (Descriptor descriptor : descriptors)
            sstables.add(of(descriptor, () -> opened(descriptor, ref)));
    }

    /** Whatever fails with a file says which file it is. */
    private static <T> T of(Descriptor descriptor, Callable<T> work)
    {
        try
        {
            return work.call();
        }
        catch (Wrong wrong)
        {
            throw new Wrong(wrong.getMessage() + " in " + name(descriptor));
        }
        catch (Exception | AssertionError error)
        {
            throw new Wrong(
                name(descriptor) + " cannot be opened: a file of it is cut off, damaged or of an unknown version ("
                + reason(error) + "); copy the snapshot again");
        }
    }

    private static String name(Descriptor descriptor)
    {
        return descriptor.baseFile().name();
    }

    private static SSTableReader opened(Descriptor descriptor, TableMetadataRef ref) throws IOException
    {
        SSTableReader sstable = SSTableReader.openNoValidation(null, descriptor, ref);
        // An index that is cut off between two keys would pass for the whole of a smaller one.
        if (sstable.getPosition(sstable.getLast(), SSTableReader.Operator.EQ) < 0)
            throw new IOException("its index lacks its last key");
        return sstable;
    }

    /** A file's header names only the columns that were written to it: the table has all of them. */
    private TableMetadata mergedMetadata(
        List<Descriptor> descriptors, List<TableMetadata> headers, List<String> dropped)
    {
        TableMetadata first = headers.get(0);
        TableMetadata.Builder merged = first.unbuild();
        byCourse = isByCourse(descriptors.get(0), first);
        for (int i = 0; i < headers.size(); i++)
        {
            if (isByCourse(descriptors.get(i), headers.get(i)) != byCourse)
                throw new Wrong(
                    "the files are of tables with two primary keys, the second's in " + name(descriptors.get(i)));
            for (ColumnMetadata column : headers.get(i).regularAndStaticColumns())
                if (merged.getColumn(column.name) == null)
                    merged.addColumn(column);
        }
        for (int i = 0; i < COLUMNS.length; i++)
            if (merged.getColumn(UTF8Type.instance.decompose(COLUMNS[i])) == null)
                merged.addRegularColumn(COLUMNS[i], TYPES[i]);
        for (String one : dropped)
            drop(merged, one);
        return merged.build();
    }

    /** A cell of a dropped column does not make a row live. */
    private static void drop(TableMetadata.Builder merged, String dropped)
    {
        String name = dropped.substring(0, dropped.indexOf('='));
        boolean again = dropped.endsWith("+");
        String untilUs = dropped.substring(name.length() + 1, dropped.length() - (again ? 1 : 0));
        ColumnMetadata column = merged.getColumn(UTF8Type.instance.decompose(name));
        if (column == null)
            return;
        if (!again)
            merged.removeRegularOrStaticColumn(column.name);
        merged.recordColumnDrop(column, Long.parseLong(untilUs));
    }

    private static TableMetadata header(Descriptor descriptor) throws IOException
    {
        TableMetadata one = Util.metadataFromSSTable(descriptor);
        if (!(one.partitioner instanceof Murmur3Partitioner))
            throw new Wrong("another partitioner than Murmur3");
        for (int i = 0; i < COLUMNS.length; i++)
        {
            ColumnMetadata column = one.getColumn(UTF8Type.instance.decompose(COLUMNS[i]));
            if (column != null && !column.type.equals(TYPES[i]))
                throw new Wrong(
                    COLUMNS[i] + " is a " + column.type.asCQL3Type() + ", and has to be a " + TYPES[i].asCQL3Type());
        }
        return one;
    }

    private static boolean isByCourse(Descriptor descriptor, TableMetadata one)
    {
        boolean texts = true;
        for (ColumnMetadata column : one.clusteringColumns())
            texts &= column.type.equals(UTF8Type.instance);
        int clusterings = one.clusteringColumns().size();
        if (texts && clusterings == 4 && one.partitionKeyType.equals(UTF8Type.instance))
            return true;
        if (texts && clusterings == 3 && one.partitionKeyType instanceof CompositeType)
        {
            List<AbstractType<?>> parts = ((CompositeType) one.partitionKeyType).types;
            if (parts.size() == 2 && parts.stream().allMatch(UTF8Type.instance::equals))
                return false;
        }
        throw new Wrong(
            "the primary key in " + name(descriptor) + " is neither of those of assessment_aggregator");
    }

    private void serve() throws IOException, InterruptedException
    {
        for (;; out.flush())
        {
            String[] words = requests.take().split(" ");
            if (words[0].equals("describe"))
                describe();
            else
            {
                long[] numbers = Arrays.stream(words).skip(1).mapToLong(Long::parseLong).toArray();
                read(numbers[0], numbers[1], numbers[2], numbers[3]);
            }
        }
    }

    private void describe() throws IOException
    {
        for (SSTableReader sstable : sstables)
        {
            Object host = sstable.getSSTableMetadata().originatingHostId;
            frame('D', new Pack().array(6)
                .text(sstable.getFilename())
                .bool(byCourse)
                .text(host == null ? "" : host.toString())
                .number(sstable.getSSTableMetadata().totalRows)
                .number((Long) sstable.getFirst().getToken().getTokenValue())
                .number((Long) sstable.getLast().getToken().getTokenValue()));
        }
        frame('E', new Pack().number(sstables.size()));
    }

    private void read(long start, long end, long nowInSec, long gcBeforeInSec) throws IOException
    {
        long rows = 0;
        Pack pack = new Pack();
        int inFrame = 0;
        try (PartitionIterator partitions = answered(start, end, nowInSec, gcBeforeInSec))
        {
            ColumnMetadata[] columns = columns();
            while (partitions.hasNext())
                try (RowIterator partition = partitions.next())
                {
                    ByteBuffer key = partition.partitionKey().getKey();
                    ByteBuffer[] parts = byCourse
                        ? new ByteBuffer[] { key }
                        : ((CompositeType) table.partitionKeyType).split(key);
                    while (partition.hasNext())
                    {
                        row(pack, parts, partition.next(), columns);
                        inFrame++;
                        if (pack.size() >= FRAME_BYTES)
                        {
                            rows += inFrame;
                            rows(pack, inFrame);
                            pack = new Pack();
                            inFrame = 0;
                        }
                    }
                }
        }
        rows(pack, inFrame);
        frame('E', new Pack().number(rows + inFrame));
    }

    private PartitionIterator answered(long start, long end, long nowInSec, long gcBeforeInSec)
    {
        IPartitioner partitioner = table.partitioner;
        Token from = new Murmur3Partitioner.LongToken(start);
        Token to = new Murmur3Partitioner.LongToken(end);
        DataRange range = from.equals(to)
            ? DataRange.allData(partitioner)
            : DataRange.forTokenRange(new Range<>(from, to));
        // As a query fetches: the other columns tell whether a row lives, their values are skipped.
        RegularAndStaticColumns.Builder queried = RegularAndStaticColumns.builder();
        for (ColumnMetadata column : columns())
            queried.add(column);
        ColumnFilter filter = ColumnFilter.selection(table, queried.build(), false);
        // As replicas do: each node merges its files and makes tombstones of what has expired.
        Map<File, List<UnfilteredPartitionIterator>> nodes = new LinkedHashMap<>();
        for (SSTableReader sstable : sstables)
            nodes.computeIfAbsent(sstable.descriptor.directory, one -> new ArrayList<>())
                .add(sstable.partitionIterator(filter, range, SSTableReadsListener.NOOP_LISTENER));
        List<UnfilteredPartitionIterator> answers = new ArrayList<>();
        for (List<UnfilteredPartitionIterator> files : nodes.values())
            answers.add(Transformation.apply(merged(files), new Purge(nowInSec, gcBeforeInSec)));
        return FilteredPartitions.filter(merged(answers), nowInSec);
    }

    private static UnfilteredPartitionIterator merged(List<UnfilteredPartitionIterator> parts)
    {
        return UnfilteredPartitionIterators.merge(parts, UnfilteredPartitionIterators.MergeListener.NOOP);
    }

    private ColumnMetadata[] columns()
    {
        ColumnMetadata[] columns = new ColumnMetadata[COLUMNS.length];
        for (int i = 0; i < COLUMNS.length; i++)
            columns[i] = table.getColumn(UTF8Type.instance.decompose(COLUMNS[i]));
        return columns;
    }

    /** Write user, course, batch, content, attempt, time, score and greatest score of one row. */
    private void row(Pack pack, ByteBuffer[] key, Row row, ColumnMetadata[] columns)
    {
        ByteBuffer[] rest = row.clustering().getBufferArray();
        pack.array(8);
        pack.text(byCourse ? rest[1] : key[0]);
        pack.text(byCourse ? key[0] : key[1]);
        pack.text(rest[0]);
        pack.text(rest[rest.length - 2]);
        pack.text(rest[rest.length - 1]);
        ByteBuffer time = value(row, columns[0]);
        if (time == null) pack.nil(); else pack.number(time.getLong(time.position()));
        for (int i = 1; i < columns.length; i++)
        {
            ByteBuffer score = value(row, columns[i]);
            if (score == null) pack.nil(); else pack.real(score.getDouble(score.position()));
        }
    }

    /** An empty value is a null to every driver. */
    private static ByteBuffer value(Row row, ColumnMetadata column)
    {
        Cell<?> cell = row.getCell(column);
        if (cell == null)
            return null;
        ByteBuffer buffer = cell.buffer();
        return buffer.hasRemaining() ? buffer : null;
    }

    private void rows(Pack pack, int number) throws IOException
    {
        if (number == 0)
            return;
        Pack head = new Pack().array(number);
        out.writeByte('R');
        out.writeInt(head.size() + pack.size());
        head.writeTo(out);
        pack.writeTo(out);
    }

    private void frame(char letter, Pack pack) throws IOException
    {
        out.writeByte(letter);
        out.writeInt(pack.size());
        pack.writeTo(out);
    }
}
